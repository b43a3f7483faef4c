// From an order to what is served.
import { Relay } from "../relay.js";

const POEM = ["春雨", "潇潇", "湿柳丝，\n", "一江", "新绿", "上船时。"];

export async function aTextFromTheFirstLetterToTheGallery({ screen, page, poet }) {
	await poet.load("loading the weights");
	await page.locator("#prompt").click();
	await page.keyboard.type("春雨");
	await screen.see(".awake[data-model=poet]", "waking");
	await screen.click("#serve");
	await screen.see("#status", /^Waking the model · fetching the ingredients/);
	await screen.attribute("[data-course=waking]", "class", "now");
	await poet.load(null);
	await poet.send(...POEM);
	await screen.see("#text", POEM.join(""));
	await screen.see(".awake[data-model=poet]", "ready");
	await screen.style("#answer", "textAlign", "center"); // set as verse
	await poet.send(null);
	await screen.see("#status", "Served.");
	await screen.see("#facts", /6 tokens/);
	await screen.count("#shelf li", 1);
	await screen.hidden("#stop");
	await screen.click("#upright");
	await screen.style("#answer", "writingMode", "vertical-rl");
}

export async function aPictureInSteps({ screen, painter }) {
	await painter.paint();
	await screen.order("a red fox", "painter");
	await screen.see("#status", "Served.");
	await screen.attribute("#pictures img:not(.old)", "alt", "Picture 1: a red fox");
	await screen.is("#pictures img:not(.old)", 256, (image) => image.naturalWidth);
	await screen.see("#facts", /understood: fox/);
	await screen.is("#shelf img", 256, (image) => image.naturalWidth);
	await screen.click("#actual");
	await screen.attribute("#actual", "aria-pressed", "true");
	await screen.is("#pictures img:not(.old)", 256, (image) => image.width);
}

export async function stopFreesTheSlot({ screen, poet }) {
	await poet.send("Once ", "upon ");
	await screen.order("a tale");
	await screen.see("#text", "Once upon");
	await screen.click("#stop");
	await screen.see("#status", "Stopped.");
	await poet.idle();
	await poet.send("new", null);
	await screen.order("another tale");
	await screen.see("#text", "new");
}

export async function aReloadFindsTheRunningJob({ screen, page, poet }) {
	await poet.send("one ", "two ");
	await screen.order("count");
	await screen.see("#text", "one two");
	await page.reload();
	await screen.see("#text", "one two");
	await screen.value("#prompt", "count");
	await poet.send("three", null);
	await screen.see("#status", "Served.");
	await screen.see("#text", "one two three");
}

export async function aLostConnectionIsFoundAgain({ screen, poet, complaints }) {
	const relay = new Relay();
	try {
		await screen.page.goto(await relay.to(screen.url));
		await poet.send("one ", "two ");
		await screen.order("count");
		await screen.see("#text", "one two");
		relay.cut();
		await screen.see("#status", "The connection is lost. Trying again…");
		await poet.send("three");
		relay.mend();
		await screen.see("#text", "one two three");
		await poet.send(null);
		await screen.see("#status", "Served.");
		await screen.count("#shelf li", 1);
	} finally {
		relay.close();
	}
	complaints.length = 0; // of the connection
}

export async function aConversationWithMarkdown({ screen, poet }) {
	await poet.send("# Rain\n\nIt is **wet**.", null);
	await screen.order("what is rain?");
	await screen.see("#answer strong", "wet");
	await screen.click("#reply");
	await screen.focused("#prompt");
	await screen.see("#talk", /turn 1/);
	await poet.send("From clouds.", null);
	await screen.fill("#prompt", "and whence?");
	await screen.click("#serve");
	await screen.see("#answer", "From clouds.");
	await screen.count("#turns > *", 3);
	const [, { messages }] = await poet.requests();
	if (messages.map(({ role }) => role).join() !== "user,assistant,user") throw new Error(JSON.stringify(messages));
}

export async function ordersWaitInLine({ screen, page, poet }) {
	await poet.send("one");
	await screen.order("first");
	await screen.see("#text", "one");
	await screen.order("second");
	await screen.see("#line", /second/);
	await poet.send(null, "two", null);
	await screen.see("#text", "two");
	await screen.count("#line li", 0);
	await screen.see("#status", "Served.");
	await page.reload();
	await screen.count("#shelf li", 2);
}
