// What went wrong, and the words for it.

export class Problem extends Error {
  /** `retryAfterS` is null where the server names no time; `errors` is field → messages. */
  constructor({ status, code = "", detail = "", errors = {}, retryAfterS = null }) {
    super(detail || code || `status ${status}`);
    Object.assign(this, { status, code, detail, errors, retryAfterS });
  }

  get isSessionOver() {
    return this.status === 401;
  }
}

export function unreachable() {
  return new Problem({ status: 0, code: "unreachable" });
}

/** The problem that a response tells: RFC 9457, the token routes' RFC 6749, or no JSON at all. */
export async function problemOf(response) {
  const told = await response.json().catch(() => ({}));
  const after = response.headers.get("Retry-After") ?? "";
  return new Problem({
    status: response.status,
    code: told.code ?? told.error,
    detail: told.detail,
    errors: told.errors,
    retryAfterS: /^\d+$/.test(after) ? Number(after) : null,
  });
}

const WORDS = {
  unreachable: "The server cannot be reached.",
  cut_off: "The connection was cut before the answer was complete.",
  invalid_grant: "Name or password is not right.",
  rate_limited: "That was too often in a short time.",
  too_many_waiting: "Several of your questions are waiting already.",
  insufficient_quota: "You have not enough tokens left for that today.",
  quota_in_use: "The rest of your tokens for today is set aside for answers under way.",
  engine_busy: "The engine is busy.",
  queue_full: "The engine is busy: many others are waiting.",
  queue_timeout: "The engine is busy: no turn came in time.",
  query_expired: "The question was given up while it waited.",
  engine_loading: "The engine is still loading its model.",
  engine_unavailable: "The engine is not running.",
  engine_timeout: "The engine took too long to answer.",
  engine_bad_reply: "The engine sent something that cannot be used.",
  engine_misconfigured: "The engine refuses this server. Tell whoever runs it.",
  context_length_exceeded: "That is too long for the model.",
  survival_mode: "This server is short of resources and takes no questions for now.",
  database_unavailable: "The server cannot reach its database.",
  hashing_busy: "Many people are signing in at once.",
  credential_revoked: "Your session was ended while the answer was being written.",
  internal_error: "The server made a mistake. It has been logged.",
};

/** What happened, without when to try again. */
export function wordsFor(problem) {
  if (!(problem instanceof Problem)) throw problem; // a mistake of ours: let the browser tell it
  const [field, messages] = Object.entries(problem.errors)[0] ?? [];
  if (field) return messages.join(" ");
  return WORDS[problem.code] || problem.detail || "Something went wrong.";
}

/** The same, with when to try again where the server says so. */
export function sentenceFor(problem) {
  const words = wordsFor(problem);
  if (problem.code === "insufficient_quota") return `${words} ${quotaHint(problem)}`;
  if (problem.retryAfterS === null) return words;
  return `${words} Try again in ${spell(problem.retryAfterS)}.`;
}

function quotaHint(problem) {
  const fitsSomeDay = problem.retryAfterS !== null;
  return fitsSomeDay ? "More come at midnight UTC." : "A whole day's would not do either.";
}

/** `5 s`, `3 min`, `2 h`: rounded up, for earlier is too early. */
export function spell(seconds) {
  if (seconds < 100) return `${seconds} s`;
  if (seconds < 100 * 60) return `${Math.ceil(seconds / 60)} min`;
  return `${Math.ceil(seconds / 3600)} h`;
}
