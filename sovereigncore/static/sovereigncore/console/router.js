// Which view: the part of the address behind `#/`. The server does not see it.

/** `#/chat/0f8f…` as `{ name: "chat", id: "0f8f…" }`; what is no address of ours is the chat. */
function readHash() {
  const found = /^#\/([a-z]+)(?:\/([0-9a-f-]{36}))?$/.exec(location.hash);
  return { name: found?.[1] ?? "chat", id: found?.[2] ?? null };
}

/** Call `show({ name, id })` now and whenever the address changes; returns what ends that. */
export function follow(show) {
  const handle = () => {
    // `#main` and the like are places on the page, and no views.
    if (location.hash === "" || location.hash.startsWith("#/")) show(readHash());
  };
  addEventListener("hashchange", handle);
  show(readHash());
  return () => removeEventListener("hashchange", handle);
}

/** Give the view that is shown another address. */
export function rename(hash) {
  history.replaceState(null, "", hash);
}
