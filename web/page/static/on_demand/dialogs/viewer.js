// One result as large as the window allows, and beside it another one; arrow keys lead to the others.
import { isVerse } from "../../stage/plate.js";
import { t } from "../../texts/texts.js";
import { blocks, node } from "../markdown.js";
import { stylesheet } from "../stylesheet.js";
import { say } from "../texts.js";

await stylesheet("dialogs/viewer.css");

const dialog = document.createElement("dialog");
dialog.className = "viewer";
const panes = dialog.appendChild(document.createElement("div"));
panes.className = "panes";
const bar = dialog.appendChild(document.createElement("nav"));
let results = [];
let at = 0;
let pinned = null;
let urls = [];

const back = button("←", () => move(-1));
const pin = button("", () => {
	pinned = pinned ? null : results[at];
	if (pinned) move(at + 1 < results.length ? 1 : -1);
	else show();
});
const on = button("→", () => move(1));
const close = button("✕", () => dialog.close());
document.body.append(dialog);
dialog.addEventListener("keydown", ({ key }) => move({ ArrowLeft: -1, ArrowRight: 1 }[key] ?? 0));
dialog.addEventListener("click", ({ target }) => target === dialog && dialog.close());
dialog.addEventListener("close", () => {
	forget();
	panes.replaceChildren();
});

/** `kept`: the results beside it, among which it may no longer be. */
export function view(result, kept) {
	const found = kept.findIndex(({ id }) => id === result.id);
	results = found < 0 ? [result, ...kept] : kept;
	at = Math.max(found, 0);
	pinned = null;
	pin.hidden = results.length < 2;
	for (const [each, name] of [[back, "view.back"], [on, "view.on"], [close, "close"]]) each.ariaLabel = each.title = say(name);
	show();
	dialog.showModal();
	on.focus();
}

function move(step) {
	const next = results[at + step] === pinned ? at + 2 * step : at + step;
	if (step === 0 || !results[next]) return;
	at = next;
	show();
}

function show() {
	const held = panes.contains(document.activeElement);
	forget();
	const shown = pinned ? [pinned, results[at]] : [results[at]];
	panes.replaceChildren(...shown.map(pane));
	pin.textContent = say(pinned ? "view.alone" : "view.compare");
	if (held) panes.lastElementChild.firstElementChild.focus();
	back.ariaDisabled = at === 0; // disabled, it would lose the focus, and arrow keys with it
	on.ariaDisabled = at === results.length - 1;
	dialog.ariaLabel = results[at].order.prompt;
}

function pane(result) {
	const made = document.createElement("figure");
	const content = made.appendChild(document.createElement("div"));
	content.className = result.kind === "text" ? `text prose${isVerse(result.text) ? " verse" : ""}` : "image";
	content.dir = "auto";
	content.tabIndex = 0;
	if (result.kind === "text") content.append(...blocks(result.text).map(({ block }) => node(block)));
	else content.append(...result.pictures.map((picture) => image(picture, result)));
	content.style.setProperty("--columns", Math.ceil(Math.sqrt(content.children.length)));
	const caption = made.appendChild(document.createElement("figcaption"));
	caption.dir = "auto";
	caption.textContent = [result.order.prompt, result.model, t("facts.seed", { seed: result.order.seed })].join(" · ");
	return made;
}

function image({ blob, width, height }, { order }) {
	const made = new Image(width, height);
	made.alt = order.prompt;
	made.src = URL.createObjectURL(blob);
	urls.push(made.src);
	return made;
}

function forget() {
	urls.forEach((url) => URL.revokeObjectURL(url));
	urls = [];
}

function button(text, act) {
	const made = bar.appendChild(document.createElement("button"));
	made.className = "quiet";
	made.textContent = text;
	made.addEventListener("click", act);
	return made;
}
