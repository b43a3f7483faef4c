// What was served before.
async function served({ screen, poet }, ...texts) {
	for (const [at, text] of texts.entries()) {
		await poet.send(text, null);
		await screen.order(`order ${at + 1}`);
		await screen.count("#shelf li", at + 1);
		await screen.see("#status", "Served.");
	}
}

export async function favouritesSearchAndUndo({ screen, page, poet }) {
	await served({ screen, poet }, "rain", "snow");
	await screen.click("#shelf li:last-child [data-act=star]");
	await screen.attribute("#shelf li:last-child [data-act=star]", "aria-pressed", "true");
	await screen.click("#starred");
	await screen.attribute("#starred", "aria-pressed", "true");
	await screen.see("#count", "1 of 2");
	await screen.click("#starred");
	await screen.fill("#search", "snow");
	await screen.see("#count", "1 of 2");
	await screen.fill("#search", "");
	await screen.click("#shelf li:first-child [data-act=remove]");
	await screen.count("#shelf li", 1);
	await screen.click("#toast button");
	await screen.count("#shelf li", 2);
	await page.reload();
	await screen.see("#shelf li:last-child .prompt", "order 1");
	await screen.attribute("#shelf li:last-child [data-act=star]", "aria-pressed", "true");
}

export async function theFullViewComparesByArrowKeys({ screen, poet }) {
	await served({ screen, poet }, "rain", "snow");
	await screen.click("[data-act=view]");
	await screen.see(".viewer figcaption", /^order 2/);
	await screen.press("ArrowRight");
	await screen.see(".viewer figcaption", /^order 1/);
	await screen.click(".viewer nav button:nth-child(2)");
	await screen.count(".viewer figure", 2);
	await screen.press("Escape");
	await screen.is(".viewer", false, (dialog) => dialog.open);
	await screen.focused("[data-act=view]");
}

export async function aResultFillsTheFormAndUndoEmptiesIt({ screen, poet }) {
	await served({ screen, poet }, "rain");
	await screen.fill("#prompt", "something else");
	await screen.click("#shelf .open");
	await screen.value("#prompt", "order 1");
	await screen.click("#toast button");
	await screen.value("#prompt", "something else");
}

export async function theCodeIsShownAndCopied({ screen, poet }) {
	await served({ screen, poet }, "rain");
	await screen.click("#code summary");
	await screen.see("#snippet", /^curl/);
	await screen.focused("#code summary");
	await screen.press("Tab");
	await screen.press("ArrowRight");
	await screen.see("#snippet", /fetch\(/);
	await screen.click("#copy-code");
	await screen.see("#toast", "Copied");
}
