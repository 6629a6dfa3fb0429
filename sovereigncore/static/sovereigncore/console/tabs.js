// The other tabs of this browser: who signed in shares the session with them, and they take turns at
// what may be done once only. Nothing here leaves the browser.

const channel = new BroadcastChannel("sovereigncore");
const SPENT = "sovereigncore.spent";

export function tell(message) {
  channel.postMessage(message);
}

export function listen(handle) {
  channel.addEventListener("message", (event) => handle(event.data));
}

/** Do `work` while no other tab does its own. Without https or loopback browsers have no locks; then
 * `markSpent` alone keeps tabs apart, all but a few milliseconds. */
export function exclusively(work) {
  if (!navigator.locks) return work();
  return navigator.locks.request("sovereigncore.refresh", work);
}

// The id of the refresh token that was used last, which is no secret. A message on the channel may
// still be on its way when the lock is free again; what is stored here was stored a whole request
// earlier.

export function markSpent(tokenId) {
  try {
    localStorage.setItem(SPENT, tokenId);
  } catch {
    // storage is switched off: tabs are on their own
  }
}

export function isSpent(tokenId) {
  try {
    return localStorage.getItem(SPENT) === tokenId;
  } catch {
    return false;
  }
}
