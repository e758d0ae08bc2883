// What every page does: live parts, forms without a reload, dialogs, copying, times.
import { replaceMain, startLive, stopLive } from "./live.js";
import { openPalette, toggleTheme } from "./palette.js";
import { showTimes } from "./times.js";

showTimes(document);
setInterval(() => showTimes(document), 1000);
startLive();

async function visit(url, options = {}) {
  stopLive();
  const answer = await fetch(url, { ...options, headers: { accept: "text/html", ...options.headers } });
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (!answer.ok) {
    say(page.querySelector("main p")?.textContent ?? `It didn't work (${answer.status})`);
    startLive();
    return false;
  }
  if (answer.url !== location.href) history.pushState(null, "", answer.url);
  document.title = page.title;
  replaceMain(page.getElementById("main").innerHTML);
  const message = page.querySelector("#flash p")?.textContent;
  if (message) say(message);
  startLive();
  return true;
}

function say(text) {
  const paragraph = document.createElement("p");
  paragraph.textContent = text;
  document.getElementById("flash").replaceChildren(paragraph);
  setTimeout(() => paragraph.remove(), 6000);
}

addEventListener("popstate", () => visit(location.href));

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (form.dataset.confirm && !confirm(form.dataset.confirm)) {
    event.preventDefault();
    return;
  }
  if (form.method === "dialog") return;
  event.preventDefault();
  const fields = new URLSearchParams(new FormData(form, event.submitter));
  if (form.method === "post") {
    const isDone = await visit(form.action, { method: "POST", body: fields });
    if (isDone) form.closest("dialog")?.close();
  } else {
    for (const [name, value] of [...fields]) if (!value) fields.delete(name, value);
    await visit(`${form.action}?${fields}`);
  }
});

document.addEventListener("change", (event) => {
  event.target.form?.closest("[data-auto]")?.requestSubmit();
});

document.addEventListener("click", (event) => {
  const target = event.target;
  const opener = target.closest("[data-dialog]");
  if (opener) document.getElementById(opener.dataset.dialog).showModal();
  if (target.closest("[data-close]")) target.closest("dialog").close();
  const copier = target.closest("[data-copy]");
  if (copier) {
    navigator.clipboard.writeText(document.getElementById(copier.dataset.copy).textContent);
    say("Copied");
  }
  const row = target.closest("[data-rows] tbody tr");
  if (row && !target.closest("a, button, input, label") && !getSelection().toString()) {
    row.querySelector(".row-link")?.click();
  }
  for (const open of document.querySelectorAll(".filters details[open], .switch[open]")) {
    if (!open.contains(target)) open.removeAttribute("open");
  }
});

// JSON is checked while it is written, and the line is named.
document.addEventListener("input", (event) => {
  const area = event.target.closest("textarea[data-json]");
  if (!area) return;
  const problem = area.form.querySelector("[data-problem]");
  let text = "";
  try {
    if (area.value.trim()) JSON.parse(area.value);
  } catch (error) {
    text = describe(error.message, area.value);
  }
  problem.textContent = text;
  problem.hidden = !text;
  area.setAttribute("aria-invalid", String(Boolean(text)));
});

function describe(message, text) {
  const place = /position (\d+)/.exec(message);
  if (!place) return `This is not JSON: ${message}`;
  const before = text.slice(0, Number(place[1])).split("\n");
  return `This is not JSON: line ${before.length}, column ${before.at(-1).length + 1}`;
}

document.getElementById("open-palette").addEventListener("click", openPalette);
document.getElementById("toggle-theme").addEventListener("click", toggleTheme);
