// What screen readers are told of changes that others see.

/** Say `text` when the reader has finished what it says now. */
export function announce(text) {
  const region = document.getElementById("announcer");
  // The same words twice are no change, and would not be said.
  region.textContent = region.textContent === text ? `${text}\u00a0` : text;
}
