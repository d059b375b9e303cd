// @ts-check
// What a page does beyond its links and forms: it follows the Core's events, shows the reader's own time, and copies
// command lines. Without this file every page still reads and works.

const wait = 600; // milliseconds after an event: longer than the server shares a result (freshFor)
const pause = 2000; // between two loads

/** @param {ParentNode} root */
function addReaderTimes(root) {
  for (const t of root.querySelectorAll("time[datetime]:not([data-read])")) {
    const at = new Date(t.getAttribute("datetime") || "");
    t.setAttribute("data-read", "");
    if (isNaN(at.getTime()) || at.getTimezoneOffset() === 0) continue;
    const here = document.createElement("span");
    here.className = "here";
    here.textContent = " · " + at.toLocaleString(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" }) + " here";
    t.append(here);
  }
}

/** @param {ParentNode} root */
function addCopyButtons(root) {
  if (!navigator.clipboard) return;
  for (const code of root.querySelectorAll("code.cmd:not([data-copy])")) {
    code.setAttribute("data-copy", "");
    const b = document.createElement("button");
    b.type = "button";
    b.className = "quiet";
    b.textContent = "Copy";
    b.addEventListener("click", async () => {
      await navigator.clipboard.writeText(code.textContent || "");
      b.textContent = "Copied";
      setTimeout(() => (b.textContent = "Copy"), 2000);
    });
    code.after(b);
  }
}

/** @param {ParentNode} root */
function dress(root) {
  addReaderTimes(root);
  addCopyButtons(root);
}

/** The parts of the page as the server sent them, by id. @type {Map<string, string>} */
const sent = new Map();
for (const e of document.querySelectorAll("[data-live][id]")) sent.set(e.id, e.outerHTML);

async function load() {
  const answer = await fetch(location.href, { credentials: "same-origin", redirect: "error" });
  if (!answer.ok) throw new Error(answer.statusText);
  const next = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const e of next.querySelectorAll("[data-live][id]")) {
    const old = document.getElementById(e.id);
    const html = e.outerHTML;
    if (!old || sent.get(e.id) === html) continue;
    const fields = /** @type {NodeListOf<HTMLInputElement>} */ (old.querySelectorAll("input:not([type=hidden])"));
    if ([...fields].some((f) => f.value !== f.defaultValue || f.checked !== f.defaultChecked || f === document.activeElement)) continue; // somebody writes
    sent.set(e.id, html);
    const focus = old.contains(document.activeElement) ? document.activeElement?.getAttribute("href") : null;
    const left = old.scrollLeft;
    const folded = old.querySelectorAll("details");
    const fresh = e.querySelectorAll("details");
    if (folded.length === fresh.length) fresh.forEach((d, i) => (d.open = folded[i].open));
    dress(e);
    old.replaceWith(e);
    e.scrollLeft = left;
    if (focus) /** @type {HTMLElement | null} */ (e.querySelector(`[href="${CSS.escape(focus)}"]`))?.focus({ preventScroll: true });
  }
}

function follow() {
  const path = document.body.dataset.events;
  if (!path) return;
  const sign = document.getElementById("live");
  /** @type {EventSource | null} */
  let source = null;
  let timer = 0;
  let last = 0;

  /** @param {string} text @param {boolean} good */
  const show = (text, good) => {
    if (!sign) return;
    sign.hidden = false;
    sign.textContent = text;
    sign.classList.toggle("off", !good);
  };
  const soon = () => {
    if (timer || document.hidden) return;
    timer = window.setTimeout(async () => {
      timer = 0;
      last = Date.now();
      try {
        await load();
        show("live", true);
      } catch {
        show("not current: the Core does not answer", false);
      }
    }, Math.max(wait, last + pause - Date.now()));
  };
  const open = () => {
    if (source || document.hidden) return;
    source = new EventSource(path);
    source.onopen = () => show("live", true);
    source.onerror = () => show("connecting", false);
    for (const kind of ["connected", "enrolled", "revoked", "started", "progress", "ended", "released", "incident", "resolved", "refused", "upkeep", "trouble", "missed"]) {
      source.addEventListener(kind, soon);
    }
  };
  const close = () => {
    source?.close();
    source = null;
  };
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) return close();
    open();
    soon();
  });
  addEventListener("pagehide", close);
  addEventListener("pageshow", open);
  setInterval(soon, 1000 * Number(document.body.dataset.every || 60)); // the night moves on without events, too
  open();
}

dress(document);
follow();
