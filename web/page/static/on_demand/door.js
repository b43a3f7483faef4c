import { t } from "../texts/texts.js";

const element = (id) => document.getElementById(id);

/** Ask the user for a key; empty where there is none. */
export function ask(refused) {
	const dialog = element("door");
	const why = element("door-why");
	why.dataset.t = refused ? "key.refused" : "key.why";
	why.textContent = t(why.dataset.t);
	element("key").value = "";
	element("door-no").onclick = () => dialog.close();
	dialog.showModal();
	return new Promise((resolve) => {
		dialog.onclose = () => {
			const given = dialog.returnValue ? element("key").value.trim() : "";
			dialog.returnValue = element("key").value = "";
			resolve(given);
		};
	});
}
