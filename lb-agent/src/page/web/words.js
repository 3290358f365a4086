// Numbers, moments and states in words, as the command line has them.

const plain = new Intl.NumberFormat("en-US");
const short = new Intl.NumberFormat("en-US", { maximumFractionDigits: 1 });

export const number = (n) => plain.format(n ?? 0);

export const counted = (n, singular) => `${number(n)} ${singular}${n === 1 ? "" : "s"}`;

export const percent = (part) => `${(part ?? 0).toFixed(1)}%`;

// A rate a second; a dash while it is not known.
export function rate(perSecond) {
  if (perSecond === null || perSecond === undefined) return "–";
  return perSecond >= 100 ? plain.format(Math.round(perSecond)) : short.format(perSecond);
}

export function bytes(n) {
  let [value, unit] = [n ?? 0, 0];
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
  while (value >= 1023.5 && unit < units.length - 1) [value, unit] = [value / 1024, unit + 1];
  const digits = unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return `${value.toFixed(digits)} ${units[unit]}`;
}

// A span in its two largest units.
export function span(ms) {
  const seconds = Math.max(0, Math.floor((ms ?? 0) / 1000));
  const pair = (large, a, small, b) => (small ? `${large}${a} ${small}${b}` : `${large}${a}`);
  if (seconds < 60) return `${seconds}s`;
  if (seconds < 3600) return pair(Math.floor(seconds / 60), "m", seconds % 60, "s");
  if (seconds < 86400) return pair(Math.floor(seconds / 3600), "h", Math.floor(seconds / 60) % 60, "m");
  return pair(Math.floor(seconds / 86400), "d", Math.floor(seconds / 3600) % 24, "h");
}

export const ago = (at, now) => (at === null || at === undefined ? "never" : `${span(now - at)} ago`);

export const clock = (at) => new Date(at).toLocaleTimeString("en-GB");

export const moment = (at) => new Date(at).toLocaleString("en-GB");

export const shares = (of) => Object.entries(of ?? {}).map(([subset, share]) => `${subset}=${share}`).join(" ");

// How bad a word of health or of a change is.
export function tone(word) {
  const good = ["healthy", "passing", "in", "listed", "enabled", "promoted"];
  const poor = ["warning", "draining", "maintenance", "held", "stepping", "unknown", "absent"];
  if (good.includes(word)) return "ok";
  return poor.includes(word) ? "warn" : "bad";
}

// What a shift is doing, in a sentence.
export function shift(of, now) {
  const base = shares(of.base_shares);
  const has = `${of.subset} has ${percent(of.percent)}`;
  if (of.phase === "returned") return `Traffic was taken back from ${of.subset} to ${base}, until it is acknowledged: ${of.reason ?? ""}`;
  if (of.phase === "promoted") return `${of.subset} was promoted. A rollback goes back to ${base}.`;
  let text = `${has} and is watched; if its gate fails, back to ${base}`;
  if (of.phase === "stepping" && of.to_percent !== null) {
    const wait = of.next_unix_ms - now;
    const next = wait > 0 ? `the next in ${span(wait + 1000)}` : "the next after a good window";
    text = `${has} on its way to ${of.to_percent}%, ${of.step_percent}% more every ${span(of.every_ms)}, ${next}; if its gate fails, back to ${base}`;
  }
  if (of.last_window) text += `; the last window was ${of.last_window}`;
  if (of.last_reason) text += ` (${of.last_reason})`;
  return `${text}.`;
}

// A word for a shell, quoted if it has to be.
export const quoted = (word) => (/^[\w.,:=@%+/-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);
