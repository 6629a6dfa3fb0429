// Elements: from the page's templates, and made one by one. Text goes in as text.

/** A copy of a template: its root, and its elements marked `data-slot` by name. */
export function clone(id) {
  const root = document.getElementById(id).content.firstElementChild.cloneNode(true);
  const slots = { root };
  for (const element of root.querySelectorAll("[data-slot]")) {
    slots[element.dataset.slot] = element;
  }
  return slots;
}

/** An element. Attributes that begin with `on` are listeners; null and false ones are left out. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** Somebody's own words amid ours: whatever they hold, the line around them stays as it is. */
export function isolated(text) {
  return make("bdi", {}, text);
}

/** A time as people write it, and as machines do. */
export function moment(iso, options = { dateStyle: "medium", timeStyle: "short" }) {
  const shown = new Intl.DateTimeFormat(undefined, options).format(new Date(iso));
  return make("time", { datetime: iso }, shown);
}

const numbers = new Intl.NumberFormat();

/** `1,234 tokens`; the plural is the singular with an s unless given. */
export function count(number, singular, plural = `${singular}s`) {
  return `${numbers.format(number)} ${number === 1 ? singular : plural}`;
}

/** Disable `button` while `work` goes on, so that nothing is asked for twice. */
export async function whileBusy(button, work) {
  button.disabled = true;
  try {
    return await work();
  } finally {
    button.disabled = false;
  }
}
