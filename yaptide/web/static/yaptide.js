// What every page needs besides htmx. Pages with pictures load files of their own.
"use strict";

// Times are sent in UTC; people read them in their own time zone.
function showLocalTimes(root) {
  for (const element of root.querySelectorAll("time[datetime]:not([data-shown])")) {
    const time = new Date(element.dateTime);
    if (Number.isNaN(time.getTime())) continue;
    element.dataset.shown = "";
    element.title = time.toLocaleString(undefined, { dateStyle: "full", timeStyle: "long" });
    element.textContent = time.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
  }
}

// A form that destroys something asks first: <form data-confirm="Delete it?">.
function askFirst(event) {
  const question = event.target.dataset.confirm || event.submitter?.dataset.confirm;
  if (question && !window.confirm(question)) {
    event.preventDefault();
    event.stopPropagation();
  }
}

// A button that copies the text of another element: <button data-copy="its-id">.
async function copyText(event) {
  const id = event.target.dataset?.copy;
  if (!id) return;
  const source = document.getElementById(id);
  try {
    await navigator.clipboard.writeText(source.textContent);
    event.target.textContent = "Copied";
  } catch { // not over TLS, or not allowed: the reader copies the selected text
    window.getSelection().selectAllChildren(source);
  }
}

document.addEventListener("click", copyText);
document.addEventListener("DOMContentLoaded", () => showLocalTimes(document));
document.addEventListener("htmx:load", (event) => showLocalTimes(event.detail.elt.parentElement || document));
document.addEventListener("submit", askFirst, true);

// While the server is busy, what polls asks again by itself, and a part that is loaded late is asked for again.
const MOST_TRIES = 30;
function askAgain({ elt, xhr, requestConfig }) {
  const pause = Number(xhr.getResponseHeader("Retry-After") ?? NaN);
  if (xhr.status !== 503 || !(pause >= 0) || requestConfig.verb !== "get") return false;
  if (elt.matches("[data-poll]")) return true;
  const tries = Number(elt.dataset.tries ?? 0) + 1;
  if (tries > MOST_TRIES) return false;
  elt.dataset.tries = tries;
  const again = () => htmx.ajax("GET", requestConfig.path, { source: elt, target: elt, swap: "outerHTML" });
  setTimeout(again, Math.max(1000 * pause, 200));
  return true;
}

// htmx ignores answers that are errors, unless told: their message is shown at the top of the page.
document.addEventListener("htmx:beforeSwap", (event) => {
  const { xhr } = event.detail;
  if (askAgain(event.detail)) {
    event.detail.shouldSwap = false;
    event.detail.isError = false;
  } else if (xhr.status >= 400 && xhr.getResponseHeader("Content-Type")?.startsWith("text/html")) {
    event.detail.shouldSwap = true;
    event.detail.isError = false;
    event.detail.target = document.getElementById("messages");
    event.detail.swapOverride = "innerHTML";
  }
});
document.addEventListener("htmx:sendError", () => {
  const messages = document.getElementById("messages");
  messages.textContent = "";
  const notice = messages.appendChild(document.createElement("p"));
  notice.className = "notice warning";
  notice.textContent = "The server does not respond. This page continues by itself when it does.";
});
document.addEventListener("htmx:afterRequest", (event) => {
  const warning = document.querySelector("#messages .warning");
  if (event.detail.successful && warning) warning.remove();
});

// The box that chooses all simulations on the page.
document.addEventListener("change", (event) => {
  if (!event.target.matches("[data-choose-all]")) return;
  for (const box of document.querySelectorAll("input[name=job_id]")) box.checked = event.target.checked;
});

// What the reader has chosen or opened stays so when htmx replaces a part of the page.
let kept = { checked: [], open: [] };
document.addEventListener("htmx:beforeSwap", () => {
  const ids = (selector) => [...document.querySelectorAll(selector)].map((element) => element.id);
  kept = { checked: ids("input[type=checkbox][id]:checked"), open: ids("details[id][open]") };
});
document.addEventListener("htmx:afterSwap", () => {
  const each = (ids, change) => ids.map((id) => document.getElementById(id)).filter(Boolean).forEach(change);
  each(kept.checked, (box) => { box.checked = true; });
  each(kept.open, (details) => { details.open = true; });
});

// Pages that nobody looks at ask for nothing.
document.addEventListener("htmx:beforeRequest", (event) => {
  if (document.hidden && event.target.matches("[data-poll]")) event.preventDefault();
});
