// Keeps the main part of the page as the server has it, and says when the connection is lost.
import { morph } from "./morph.js";
import { showTimes } from "./times.js";

let source = null;

export function replaceMain(html) {
  const next = document.createElement("main");
  next.innerHTML = html;
  const main = document.getElementById("main");
  for (const { name, value } of main.attributes) next.setAttribute(name, value);
  showTimes(next);
  morph(main, next);
  document.dispatchEvent(new CustomEvent("runwell:drawn"));
}

export function startLive() {
  stopLive();
  if (!document.body.hasAttribute("data-live") || document.hidden) return;
  source = new EventSource(location.href);
  const say = (text) => {
    document.getElementById("connection").textContent = text;
  };
  source.addEventListener("main", (event) => {
    say("");
    replaceMain(event.data);
  });
  source.addEventListener("beat", () => say(""));
  source.addEventListener("away", () => say("The database can't be reached: trying again…"));
  source.addEventListener("open", () => say(""));
  source.addEventListener("error", () => {
    say("Connection lost: trying again…");
    // The browser gives up for good on an answer that is no stream, as of a server that restarts.
    if (source && source.readyState === EventSource.CLOSED) setTimeout(startLive, 1000);
  });
}

export function stopLive() {
  if (source) source.close();
  source = null;
}

// A browser has six connections to a server for all tabs: one that nobody looks at needs none.
document.addEventListener("visibilitychange", () => (document.hidden ? stopLive() : startLive()));
