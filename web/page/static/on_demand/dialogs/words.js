// Which words a model knows, to choose from.
import { button } from "../../order/about.js";
import { stylesheet } from "../stylesheet.js";
import { say } from "../texts.js";

await stylesheet("dialogs/dialogs.css");

const dialog = document.createElement("dialog");
dialog.id = "words";
dialog.className = "card words-dialog";
dialog.setAttribute("aria-labelledby", "words-title");
const form = dialog.appendChild(document.createElement("form"));
form.method = "dialog";
const title = form.appendChild(Object.assign(document.createElement("h2"), { id: "words-title" }));
const close = form.appendChild(Object.assign(document.createElement("button"), { className: "quiet" }));
const list = dialog.appendChild(Object.assign(document.createElement("div"), { id: "vocabulary", className: "examples" }));
dialog.addEventListener("click", ({ target }) => target === dialog && dialog.close());
document.body.append(dialog);

/** `use(word, now)`: one was chosen, and is to be run at once. */
export function show(words, use) {
	title.textContent = say("words");
	close.textContent = say("close");
	list.replaceChildren(...words.map(button));
	list.onclick = ({ target, shiftKey }) => {
		if (target === list) return;
		dialog.close();
		use(target.textContent, shiftKey);
	};
	dialog.showModal();
}
