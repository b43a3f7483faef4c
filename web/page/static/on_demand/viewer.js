// One result as large as the window allows, and beside it another one; arrow keys lead to the others.
import { all } from "../results/archive.js";
import { t } from "../texts/texts.js";
import { blocks, node } from "./markdown.js";
import { stylesheet } from "./stylesheet.js";

await stylesheet("viewer.css");

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
	if (pinned && results.length > 1) move(at + 1 < results.length ? 1 : -1);
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

export async function view(result) {
	results = await all();
	at = Math.max(results.findIndex(({ id }) => id === result.id), 0);
	pinned = null;
	for (const [each, name] of [[back, "view.back"], [on, "view.on"], [close, "close"]]) each.ariaLabel = each.title = t(name);
	show();
	dialog.showModal();
	on.focus();
}

function move(step) {
	const next = at + step;
	if (step === 0 || !results[next]) return;
	at = next;
	show();
}

function show() {
	const held = panes.contains(document.activeElement);
	forget();
	const shown = pinned ? [pinned, results[at]] : [results[at]];
	panes.replaceChildren(...shown.map(pane));
	pin.textContent = t(pinned ? "view.alone" : "view.compare");
	if (held) panes.lastElementChild.firstElementChild.focus();
	back.ariaDisabled = at === 0; // disabled, it would lose the focus, and arrow keys with it
	on.ariaDisabled = at === results.length - 1;
	dialog.ariaLabel = results[at].order.prompt;
}

function pane(result) {
	const made = document.createElement("figure");
	const content = made.appendChild(document.createElement("div"));
	content.className = result.kind;
	content.dir = "auto";
	content.tabIndex = 0;
	if (result.kind === "text") content.append(...blocks(result.text).map(({ block }) => node(block)));
	else content.append(...result.pictures.map((picture) => image(picture, result)));
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
