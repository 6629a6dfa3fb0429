// The side of the page. Where there is no room beside the rest it is a menu that opens over it.

const WIDE = matchMedia("(min-width: 56rem)");

/** Returns what closes it again, and what ends the listening. */
export function sideMenu({ side, content, opener }) {
  function setOpen(isOpen) {
    const isOver = isOpen && !WIDE.matches;
    side.classList.toggle("is-open", isOver);
    side.inert = !isOpen && !WIDE.matches;
    content.inert = isOver;
    opener.setAttribute("aria-expanded", String(isOver));
    if (isOver) side.querySelector("a").focus();
  }

  function close() {
    const hadFocus = side.contains(document.activeElement);
    setOpen(false);
    if (hadFocus && !WIDE.matches) opener.focus();
  }

  const onResize = () => setOpen(false);
  const onKey = (event) => {
    if (event.key === "Escape" && side.classList.contains("is-open")) close();
  };
  opener.addEventListener("click", () => setOpen(true));
  side.addEventListener("click", (event) => {
    // A tap beside the menu, or on something in it that leads elsewhere.
    if (event.target === side || event.target.closest("a[href]")) close();
  });
  WIDE.addEventListener("change", onResize);
  addEventListener("keydown", onKey);
  setOpen(false);
  return {
    close,
    leave() {
      WIDE.removeEventListener("change", onResize);
      removeEventListener("keydown", onKey);
    },
  };
}
