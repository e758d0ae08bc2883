// The command palette, the keyboard, and the sheet that explains it.

const KEYS = [
  ["Ctrl K", "Find a page, a run or a command"],
  ["?", "This sheet"],
  ["g, then a letter", "Go to a page: its letter is in the palette"],
  ["j / k", "Next or previous row"],
  ["Enter", "Open the row"],
  ["/", "Find by tag"],
  ["Shift R", "Replay the run that is shown"],
  ["Esc", "Close what is open"],
];

let dialog = null;
let goes = false;

function commands() {
  const links = [...document.querySelectorAll(".side nav a")].map((link) => ({
    label: link.textContent.trim(),
    hint: `g ${link.dataset.key}`,
    act: () => location.assign(link.href),
  }));
  const forms = [...document.querySelectorAll("main button")]
    .filter((button) => button.offsetParent !== null)
    .slice(0, 30)
    .map((button) => ({
      label: button.getAttribute("aria-label") ?? button.textContent.trim(),
      hint: "",
      act: () => button.click(),
    }));
  return [
    ...links,
    ...forms,
    { label: "Change the theme", hint: "", act: toggleTheme },
    { label: "Keyboard shortcuts", hint: "?", act: showKeys },
  ];
}

export function openPalette() {
  const shown = make("palette");
  const input = document.createElement("input");
  input.placeholder = "A page, a command, or the id of a run…";
  input.setAttribute("aria-label", "Find a page, a command or a run");
  input.setAttribute("role", "combobox");
  input.setAttribute("aria-expanded", "true");
  input.setAttribute("aria-controls", "palette-list");
  const list = document.createElement("ul");
  list.id = "palette-list";
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", "What was found");
  shown.append(input, list);
  const all = commands();
  let found = [];
  let place = 0;
  const draw = () => {
    const text = input.value.trim().toLowerCase();
    found = all.filter((one) => one.label.toLowerCase().includes(text));
    if (/^run_[a-z0-9]+$/.test(text)) {
      found.unshift({ label: `Go to ${text}`, hint: "run", act: () => location.assign(`/runs/${text}`) });
    } else if (text) {
      const url = `${document.body.dataset.base}/runs?tag=${encodeURIComponent(input.value.trim())}`;
      found.push({ label: `Runs with the tag ${input.value.trim()}`, hint: "tag", act: () => location.assign(url) });
    }
    place = Math.min(place, Math.max(0, found.length - 1));
    list.replaceChildren(
      ...found.map((one, index) => {
        const item = document.createElement("li");
        item.id = `palette-${index}`;
        item.setAttribute("role", "option");
        item.setAttribute("aria-selected", String(index === place));
        const hint = document.createElement("span");
        hint.className = "none";
        hint.textContent = one.hint;
        item.append(one.label, hint);
        item.addEventListener("click", () => choose(index));
        return item;
      }),
    );
    input.setAttribute("aria-activedescendant", found.length ? `palette-${place}` : "");
    list.children[place]?.scrollIntoView({ block: "nearest" });
  };
  const choose = (index) => {
    close();
    found[index]?.act();
  };
  input.addEventListener("input", () => {
    place = 0;
    draw();
  });
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") place = Math.min(place + 1, found.length - 1);
    else if (event.key === "ArrowUp") place = Math.max(place - 1, 0);
    else if (event.key === "Enter") return choose(place);
    else return undefined;
    event.preventDefault();
    return draw();
  });
  draw();
  shown.showModal();
  input.focus();
}

export function showKeys() {
  const shown = make("");
  const title = document.createElement("h2");
  title.textContent = "Keyboard shortcuts";
  const list = document.createElement("dl");
  list.className = "keys";
  for (const [key, what] of KEYS) {
    const term = document.createElement("dt");
    const kbd = document.createElement("kbd");
    kbd.textContent = key;
    term.append(kbd);
    const text = document.createElement("dd");
    text.textContent = what;
    list.append(term, text);
  }
  shown.setAttribute("aria-label", "Keyboard shortcuts");
  shown.append(title, list);
  shown.showModal();
}

export function toggleTheme() {
  const root = document.documentElement;
  const isDark = root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = isDark ? "light" : "dark";
  localStorage.setItem("runwell-theme", root.dataset.theme);
}

function make(name) {
  close();
  dialog = document.createElement("dialog");
  dialog.className = name;
  dialog.setAttribute("aria-label", "Commands");
  dialog.addEventListener("close", close);
  dialog.addEventListener("click", (event) => event.target === dialog && close());
  document.body.append(dialog);
  return dialog;
}

function close() {
  const open = dialog;
  dialog = null;
  if (open) open.remove();
}

function move(step) {
  const rows = [...document.querySelectorAll("[data-rows] tbody tr")];
  if (!rows.length) return;
  const current = rows.findIndex((row) => row.hasAttribute("data-chosen") || row.classList.contains("chosen"));
  const next = rows[Math.max(0, Math.min(rows.length - 1, current + step))];
  next.querySelector(".row-link")?.focus();
  next.scrollIntoView({ block: "nearest" });
}

document.addEventListener("focusin", (event) => {
  for (const row of document.querySelectorAll("tr.chosen")) row.classList.remove("chosen");
  event.target.closest?.("[data-rows] tbody tr")?.classList.add("chosen");
});

document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
    event.preventDefault();
    openPalette();
    return;
  }
  const writes = event.target.closest?.("input, textarea, select, [contenteditable]");
  if (writes || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (goes) {
    goes = false;
    const link = document.querySelector(`.side nav a[data-key="${CSS.escape(event.key)}"]`);
    if (link) location.assign(link.href);
    return;
  }
  if (event.key === "g") {
    goes = true;
    setTimeout(() => (goes = false), 1500);
  } else if (event.key === "?") showKeys();
  else if (event.key === "j") move(1);
  else if (event.key === "k") move(-1);
  else if (event.key === "/") {
    event.preventDefault();
    document.getElementById("tag-search")?.focus();
  } else if (event.key === "R") document.querySelector('[data-dialog="replay"]')?.click();
});
