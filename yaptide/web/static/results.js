// Pictures of results: what curves (results-curve.js) and maps (results-map.js) have in common.
"use strict";

const Pictures = {};

// Ask for something; while the server is busy (503 with Retry-After), ask again when it says so, for a minute.
Pictures.fetch = async function (address, options) {
  for (const end = Date.now() + 60000; ;) {
    const response = await fetch(address, options);
    const pause = 1000 * Number(response.headers.get("Retry-After") ?? NaN);
    if (response.status !== 503 || !(pause >= 0) || Date.now() + pause > end) return response;
    await new Promise((resolve) => setTimeout(resolve, Math.max(pause, 200)));
  }
};

// Numbers of a slice: doubles, little endian. Answers are cached by the browser; the last ones are kept here too.
Pictures.fetchNumbers = function (address, query, Type = Float64Array) {
  const cache = (Pictures.fetched ??= new Map());
  const url = `${address}&${new URLSearchParams(query)}`;
  if (!cache.has(url)) {
    if (cache.size > 200) cache.delete(cache.keys().next().value);
    const answer = Pictures.fetch(url, { headers: { Accept: "application/octet-stream" } }).then(async (response) => {
      if (response.redirected) window.location.reload(); // the session has ended: sign in
      if (!response.ok) throw new Error(`The server answered ${response.status}`);
      return new Type(await response.arrayBuffer());
    });
    answer.catch(() => cache.delete(url));
    cache.set(url, answer);
  }
  return cache.get(url);
};

// Edges of bins from their centres: half way between these.
Pictures.edges = function (centres) {
  const n = centres.length;
  if (n === 1) return Float64Array.of(centres[0] - 0.5, centres[0] + 0.5);
  const edges = new Float64Array(n + 1);
  for (let i = 1; i < n; i++) edges[i] = (centres[i - 1] + centres[i]) / 2;
  edges[0] = 2 * centres[0] - edges[1];
  edges[n] = 2 * centres[n - 1] - edges[n - 1];
  for (const end of [0, n]) if (Math.abs(edges[end]) < 1e-9 * Math.abs(edges[1] - edges[0])) edges[end] = 0;
  return edges;
};

// Numbers as people write them: 0.25, 381040, 2.1×10⁷.
const isShort = (number) => number === 0 || (Math.abs(number) >= 1e-3 && Math.abs(number) < 1e6);
const rounded = (number, digits) => String(Number(number.toPrecision(digits))).replace("-", "−");
function powerOfTen(exponent) {
  return `×10${exponent < 0 ? "⁻" : ""}${String(Math.abs(exponent)).replace(/\d/g, (digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit])}`;
}
Pictures.format = function (number, digits = 4) {
  if (!Number.isFinite(number)) return "(no value)";
  if (isShort(number)) return rounded(number, digits);
  const [mantissa, exponent] = number.toExponential(digits - 1).split("e");
  return rounded(Number(mantissa), digits) + powerOfTen(Number(exponent));
};

// On a logarithmic axis, powers of ten without their factor 1: 10⁻², 0.1, 1, 10, 10².
Pictures.formatPower = function (number) {
  const exponent = Math.round(Math.log10(number));
  return Math.abs(exponent) > 1 ? powerOfTen(exponent).slice(1) : Pictures.format(number, 3);
};

// A value and its standard error, with the same power of ten: (2.163 ± 0.037)×10⁷ eV/g (1.7 %).
Pictures.formatValue = function (value, error, unit) {
  if (!Number.isFinite(value)) return "(no value)";
  if (!Number.isFinite(error)) return `${Pictures.format(value, 5)} ${unit}`;
  const percent = value !== 0 ? ` (${Pictures.format(Math.abs((100 * error) / value), 2)} %)` : "";
  if (isShort(value)) return `${rounded(value, 5)} ± ${Pictures.format(error, 2)} ${unit}${percent}`;
  const exponent = Math.floor(Math.log10(Math.abs(value))), power = 10 ** exponent;
  return `(${rounded(value / power, 5)} ± ${Pictures.format(error / power, 2)})${powerOfTen(exponent)} ${unit}${percent}`;
};

Pictures.label = (name, unit) => (unit ? `${name} [${unit}]` : name);

// Round numbers between two limits, for axes of pictures.
Pictures.ticks = function (low, high, most) {
  const raw = (high - low) / Math.max(most, 1);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((part) => part * power).find((size) => size >= raw * 0.999) || raw;
  const ticks = [];
  for (let at = Math.ceil(low / step - 1e-6); at * step <= high + step * 1e-6; at++) ticks.push(at === 0 ? 0 : at * step);
  return ticks;
};
Pictures.powers = function (low, high, most) {
  const first = Math.ceil(Math.log10(low) - 1e-9), last = Math.floor(Math.log10(high) + 1e-9);
  const step = Math.max(1, Math.ceil((last - first + 1) / Math.max(most, 1)));
  const ticks = [];
  for (let power = first; power <= last; power += step) ticks.push(10 ** power);
  return ticks;
};

Pictures.colours = function (element) {
  const style = getComputedStyle(element);
  const colour = (name) => style.getPropertyValue(name).trim();
  return {
    text: colour("--text"), muted: colour("--muted"), line: colour("--line"), surface: colour("--surface"),
    raised: colour("--raised"), accent: colour("--accent"), mark: colour("--focus"), font: style.fontFamily,
  };
};

// A slider with a label, which keyboards and screen readers can use.
Pictures.addSlider = function (parent, name, count, start, change) {
  const label = parent.appendChild(document.createElement("label"));
  label.append(name);
  const slider = label.appendChild(document.createElement("input"));
  Object.assign(slider, { type: "range", min: 0, max: count - 1, step: 1, value: start });
  slider.addEventListener("input", () => change(Number(slider.value)));
  return slider;
};

Pictures.save = function (canvas, name) {
  canvas.toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${name}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  });
};

// Draw again in the next frame, however many reasons there are.
Pictures.oncePerFrame = function (draw) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; draw(); });
  };
};

Pictures.start = async function (section) {
  if ("started" in section.dataset) return;
  section.dataset.started = "";
  const drawing = JSON.parse(section.dataset.drawing);
  const parts = { section };
  for (const name of ["canvas", "sliders", "readout", "log", "what", "opacity", "threshold", "window", "level", "width", "png"]) {
    parts[name] = section.querySelector(`[data-${name}]`);
  }
  try {
    const redraw = await (drawing.kind === "curve" ? Pictures.drawCurve : Pictures.drawMap)(drawing, parts);
    const redrawSoon = Pictures.oncePerFrame(redraw);
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawSoon);
    let width = parts.canvas.clientWidth;
    new ResizeObserver(() => {
      if (parts.canvas.clientWidth === width) return;
      width = parts.canvas.clientWidth;
      redrawSoon();
    }).observe(parts.canvas);
    section.dataset.ready = "";
  } catch (error) {
    const notice = parts.canvas.appendChild(document.createElement("p"));
    notice.className = "notice error";
    notice.setAttribute("role", "alert");
    notice.textContent = `The picture cannot be drawn: ${error.message}. Load the page again.`;
  }
};

// Of a long list, the entry that is shown is in sight.
function showChosen() {
  const list = document.querySelector(".estimators"), chosen = list?.querySelector("[aria-current]");
  if (!chosen) return;
  const entry = chosen.getBoundingClientRect(), frame = list.getBoundingClientRect();
  list.scrollLeft += entry.left - frame.left - (frame.width - entry.width) / 2;
  list.scrollTop += entry.top - frame.top - (frame.height - entry.height) / 2;
}

Pictures.startAll = () => document.querySelectorAll("[data-drawing]").forEach(Pictures.start);
document.addEventListener("DOMContentLoaded", () => { showChosen(); Pictures.startAll(); });
document.addEventListener("htmx:load", Pictures.startAll);
