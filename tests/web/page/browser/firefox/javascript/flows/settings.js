// The form, and how the page looks.
export async function whatTheModelDoesNotTakeIsSaidBefore({ screen, painter }) {
	await screen.choose("painter");
	await screen.fill("#prompt", "fox");
	await screen.click(".options summary");
	await screen.attribute("[name=size]", "placeholder", "64x64");
	await screen.fill("[name=size]", "512x512");
	await screen.click("#serve");
	await screen.focused("[name=size]");
	await screen.attribute("[name=size]", "aria-invalid", "true");
	const requests = await painter.requests();
	if (requests.length) throw new Error("the painter was asked");
}

export async function settingsAndLooksAreKept({ screen, page }) {
	await screen.click(".options summary");
	await screen.fill("[name=temperature]", "0.5");
	await screen.click("#theme");
	await screen.attribute("html", "data-theme", "dark");
	await screen.style("html", "backgroundColor", "rgb(23, 19, 16)");
	await screen.click("#language");
	await screen.see("#serve", "上菜");
	await page.reload();
	await screen.see("#serve", "上菜");
	await screen.style("html", "backgroundColor", "rgb(23, 19, 16)");
	await screen.value("[name=temperature]", "0.5");
}

export async function aSharedLinkFillsAndNeverRuns({ screen, painter }) {
	await screen.open("/?prompt=a+fox&model=painter&seed=7");
	await screen.value("#prompt", "a fox");
	await screen.value("[name=seed]", "7");
	await screen.is("[value=painter]", true, (input) => input.checked);
	if ((await painter.requests()).length) throw new Error("it ran by itself");
}

export async function thePromptGrowsAndNothingSticksOut({ screen, page }) {
	const height = (box) => box.getBoundingClientRect().height;
	const before = await page.$eval("#prompt", height);
	await screen.fill("#prompt", "line\n".repeat(12));
	const after = await page.$eval("#prompt", height);
	if (!(after > before * 1.5)) throw new Error(`the prompt's box is ${after} px high, and was ${before}`);
	for (const width of [1440, 1280, 768, 390]) {
		await page.setViewport({ width, height: 844 });
		const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
		if (wide > 0) throw new Error(`${wide} px stick out at ${width} px`);
	}
}

export async function byKeyboard({ screen, page, poet }) {
	const tabTo = async (id) => {
		for (let tabs = 0; tabs < 25; tabs += 1) {
			await screen.press("Tab");
			if (await page.evaluate((id) => document.activeElement.id === id || document.activeElement.name === id, id)) return;
		}
		throw new Error(`${id} is not reached`);
	};
	await tabTo("model");
	await screen.press("ArrowDown");
	await screen.is("[value=painter]", true, (input) => input.checked);
	await screen.press("ArrowUp");
	await tabTo("prompt");
	await page.keyboard.type("rain");
	await poet.send("drip ");
	await screen.chord("Control", "Enter");
	await screen.see("#text", "drip");
	await tabTo("stop");
	await screen.press("Enter");
	await screen.see("#status", "Stopped.");
	await screen.focused("#serve");
}

/** With Firefox's preference that no site may keep anything. */
export async function withoutCookies({ screen, page, poet }) {
	const thrown = await page.evaluate(() => {
		try {
			return sessionStorage.length;
		} catch (error) {
			return error.name;
		}
	});
	if (thrown !== "SecurityError") throw new Error(`sessionStorage gave ${thrown}`);
	for (const text of ["rain", "snow"]) {
		await poet.send(text, null);
		await screen.order(text);
		await screen.see("#text", text);
		await screen.see("#status", "Served.");
	}
	await screen.count("#shelf li", 2);
}
