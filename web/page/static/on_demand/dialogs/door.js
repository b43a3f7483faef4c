// The dialog that asks for the caller's key.
import { stylesheet } from "../stylesheet.js";
import { say } from "../texts.js";

await stylesheet("dialogs/dialogs.css");

const dialog = document.createElement("dialog");
dialog.id = "door";
dialog.className = "card";
dialog.setAttribute("aria-labelledby", "door-title");
dialog.setAttribute("aria-describedby", "door-why");
const form = dialog.appendChild(document.createElement("form"));
form.method = "dialog";
form.className = "door";
const title = form.appendChild(Object.assign(document.createElement("h2"), { id: "door-title" }));
const why = form.appendChild(Object.assign(document.createElement("p"), { id: "door-why" }));
const field = form.appendChild(document.createElement("label"));
field.className = "fields";
const input = field.appendChild(document.createElement("input"));
Object.assign(input, { id: "key", className: "wide", type: "password", required: true, pattern: "[ -~]+", autocomplete: "off", spellcheck: false });
const send = form.appendChild(Object.assign(document.createElement("div"), { className: "send" }));
const give = send.appendChild(Object.assign(document.createElement("button"), { className: "main", value: "given" }));
const no = send.appendChild(Object.assign(document.createElement("button"), { id: "door-no", className: "quiet", type: "button" }));
no.addEventListener("click", () => dialog.close());
document.body.append(dialog);

/** Ask the user for a key; empty where there is none. */
export function ask(refused) {
	title.textContent = say("key.title");
	why.textContent = say(refused ? "key.refused" : "key.why");
	input.ariaLabel = say("key");
	give.textContent = say("key.give");
	no.textContent = say("key.not");
	input.value = "";
	dialog.showModal();
	return new Promise((resolve) => {
		dialog.onclose = () => {
			const given = dialog.returnValue ? input.value.trim() : "";
			dialog.returnValue = input.value = "";
			resolve(given);
		};
	});
}
