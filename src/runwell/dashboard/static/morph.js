// Makes one tree of elements like another one, touching only what differs: focus, selection, scroll
// and what is open stay. Children are matched by their id, else by their place and name.

export function morph(from, to) {
  if (from.isEqualNode(to)) return;
  morphAttributes(from, to);
  if (from.matches("textarea, input, select") && isBeingEdited(from)) return;
  morphChildren(from, to);
}

// What a person has typed or chosen is theirs until they send it.
function isBeingEdited(element) {
  if (element === document.activeElement || element.closest("dialog[open]")) return true;
  if (element instanceof HTMLSelectElement) return false;
  return element.value !== element.defaultValue || element.checked !== element.defaultChecked;
}

// `open` of details and dialogs, and marks that our own scripts make, are the page's own.
const OWN = new Set(["open", "data-shown"]);

function morphAttributes(from, to) {
  for (const { name, value } of to.attributes) {
    if (!OWN.has(name) && from.getAttribute(name) !== value) from.setAttribute(name, value);
  }
  for (const { name } of [...from.attributes]) {
    if (!OWN.has(name) && !to.hasAttribute(name)) from.removeAttribute(name);
  }
}

function morphChildren(from, to) {
  const byId = new Map();
  for (const child of from.children) if (child.id) byId.set(child.id, child);
  let here = from.firstChild;
  for (const wanted of [...to.childNodes]) {
    let found = null;
    if (wanted.nodeType === Node.ELEMENT_NODE && wanted.id) {
      found = byId.get(wanted.id) ?? null;
    } else if (here && isAlike(here, wanted)) {
      found = here;
    }
    if (!found) {
      from.insertBefore(document.importNode(wanted, true), here);
      continue;
    }
    if (found === here) here = here.nextSibling;
    else from.insertBefore(found, here);
    if (found.nodeType === Node.ELEMENT_NODE) {
      if (found.localName === wanted.localName) morph(found, wanted);
      else found.replaceWith(document.importNode(wanted, true));
    } else if (found.nodeValue !== wanted.nodeValue) {
      found.nodeValue = wanted.nodeValue;
    }
  }
  while (here) {
    const next = here.nextSibling;
    here.remove();
    here = next;
  }
}

function isAlike(one, other) {
  return one.nodeType === other.nodeType && one.nodeName === other.nodeName && !one.id;
}
