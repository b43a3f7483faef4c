// Taking a result out of the page, to the clipboard.
import { t } from "../texts/texts.js";
import { toast } from "./toast.js";

export async function copyText(text, told = t("copied")) {
	toast((await write(text)) ? told : t("copy.failed"));
}

async function write(text) {
	try {
		await navigator.clipboard.writeText(text);
		return true;
	} catch {
		return written(text); // without TLS there is no navigator.clipboard
	}
}

function written(text) {
	const before = document.activeElement;
	const area = document.createElement("textarea");
	area.value = text;
	area.className = "unseen";
	document.body.append(area);
	area.select();
	const copied = document.execCommand("copy");
	area.remove();
	before?.focus({ preventScroll: true });
	return copied;
}

export async function copyResult(result) {
	if (result.kind === "text") return copyText(result.text);
	const [{ blob }] = result.pictures;
	try {
		await navigator.clipboard.write([new ClipboardItem({ [blob.type]: blob })]);
		toast(t("copied"));
	} catch {
		toast(t("copy.failed"));
	}
}
