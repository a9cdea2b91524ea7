// The form of a new simulation: files and folders can be dropped on it. Without this file they are chosen.
"use strict";

const form = document.getElementById("new");
const drop = document.getElementById("drop");
const filesInput = document.getElementById("files");
const folderInput = document.getElementById("folder");
const chosen = document.getElementById("chosen");
const title = document.getElementById("title");
const MOST_SHOWN = 12;

// The files of a dropped folder. What is in folders below it is not read: input files are in one folder.
function readFolder(entry) {
  const reader = entry.createReader();
  const files = [];
  return new Promise((resolve, reject) => {
    const readMore = () =>
      reader.readEntries((entries) => {
        if (entries.length === 0) return resolve(Promise.all(files));
        for (const each of entries) if (each.isFile) files.push(new Promise((done, failed) => each.file(done, failed)));
        return readMore();
      }, reject);
    readMore();
  });
}

async function readDropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const folders = entries.filter((entry) => entry.isDirectory);
  if (folders.length === 0) return { files: [...transfer.files], name: "" };
  const lists = await Promise.all(folders.map(readFolder));
  const single = [...transfer.files].filter((file) => entries.some((entry) => entry.isFile && entry.name === file.name));
  return { files: [...single, ...lists.flat()], name: folders[0].name };
}

function setFiles(files) {
  const transfer = new DataTransfer();
  for (const file of files) transfer.items.add(file);
  filesInput.files = transfer.files;
  folderInput.value = "";
  filesInput.dispatchEvent(new Event("change", { bubbles: true }));
}

function showChosen() {
  const files = [...filesInput.files, ...folderInput.files];
  chosen.replaceChildren();
  for (const file of files.slice(0, MOST_SHOWN)) {
    const line = chosen.appendChild(document.createElement("li"));
    line.textContent = `${file.webkitRelativePath || file.name} (${Math.max(1, Math.round(file.size / 1000))} kB)`;
  }
  if (files.length > MOST_SHOWN) {
    chosen.appendChild(document.createElement("li")).textContent = `and ${files.length - MOST_SHOWN} more`;
  }
}

for (const name of ["dragenter", "dragover"]) {
  drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));
drop.addEventListener("drop", async (event) => {
  event.preventDefault();
  const { files, name } = await readDropped(event.dataTransfer);
  if (name && !title.value) title.value = name;
  setFiles(files);
});

// The last choice counts: a folder replaces files, and files a folder.
filesInput.addEventListener("change", () => {
  if (filesInput.files.length) folderInput.value = "";
  showChosen();
});
folderInput.addEventListener("change", () => {
  if (folderInput.files.length) filesInput.value = "";
  showChosen();
});
form.addEventListener("reset", () => chosen.replaceChildren());
