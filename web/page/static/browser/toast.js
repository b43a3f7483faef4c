// A message that disappears by itself, with a way back where there is one.
import { t } from "../texts/texts.js";

let timer;

export function toast(text, undo = null) {
	const element = document.getElementById("toast");
	element.replaceChildren(text);
	if (undo) {
		const button = document.createElement("button");
		button.textContent = t("undo");
		button.addEventListener("click", () => {
			element.replaceChildren();
			undo();
		});
		element.append(" ", button);
	}
	clearTimeout(timer);
	timer = setTimeout(() => element.replaceChildren(), undo ? 8_000 : 2_500);
}
