// Uses the console as a person does, in Chromium. Settings come from the environment:
// CHROMIUM (path), CONSOLE_URL, GATEWAY_URL, TOKEN, PRODUCT (an id), SCREENSHOTS (a folder).

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const { CHROMIUM, CONSOLE_URL, GATEWAY_URL, TOKEN, PRODUCT, SCREENSHOTS } = process.env;
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
/** Only protects against a hang. */
const TIMEOUT = 120_000;

const headers = { authorization: `Bearer ${TOKEN}`, "content-type": "application/json" };
const order = () =>
  fetch(`${GATEWAY_URL}/orders`, { method: "POST", headers, body: JSON.stringify({ items: [{ productId: PRODUCT, quantity: 1 }] }) });
const read = () => fetch(`${GATEWAY_URL}/products/${PRODUCT}`, { headers });

/** Calls `work`, and waits until the page has the next values, until `condition` holds. */
async function until(what, page, condition, work) {
  const end = Date.now() + TIMEOUT;
  while (!(await condition())) {
    assert.ok(Date.now() < end, `hangs: ${what}`);
    const updated = await page.locator("#updated").textContent();
    await Promise.all(work());
    await page.locator("#updated").filter({ hasNotText: updated }).waitFor();
  }
}

const reads = (number) => Array.from({ length: number }, read);

async function violations(page, where) {
  await page.evaluate(AXE);
  const found = await page.evaluate(() => globalThis.axe.run());
  const text = found.violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.html} ${node.failureSummary}`).join("\n")}`);
  assert.deepEqual(text, [], `axe in ${where}`);
}

const browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox", "--disable-dev-shm-usage"] });
try {
  const page = await browser.newPage({ viewport: { width: 1280, height: 1000 }, colorScheme: "light" });
  page.setDefaultTimeout(TIMEOUT);
  const faults = [];
  page.on("pageerror", (error) => faults.push(`${error}`));
  page.on("console", (message) => message.type() === "error" && faults.push(message.text()));
  page.on("request", (request) => request.url().startsWith(new URL(CONSOLE_URL).origin) || faults.push(`request to ${request.url()}`));

  await page.goto(CONSOLE_URL);
  await page.getByText("Connected", { exact: true }).waitFor();

  // An order made over HTTP appears with its trace, and its trace opens by keyboard.
  const ordered = await order();
  const traceId = ordered.headers.get("x-trace-id");
  assert.match(String(ordered.status), /^20[12]$/); // 202 on a slow machine
  const row = page.locator(`#request-rows [data-key="${traceId}"]`);
  await row.waitFor();
  assert.match(await row.textContent(), /POST \/orders20[12]/);
  await row.getByRole("button").focus();
  await page.keyboard.press("Enter");
  const spans = page.locator("#spans");
  await spans.getByRole("button", { name: "palisade.products.v1.ProductsService/ReserveStock" }).first().waitFor();
  const text = await spans.textContent();
  for (const expected of ["POST /orders", "saga create_order", "step reserve_stock", "gateway server", "orders client", "products server"]) {
    assert.ok(text.includes(expected), `${expected} is not in ${text}`);
  }
  const root = spans.getByRole("button", { name: "POST /orders" });
  await root.click();
  assert.equal(await root.getAttribute("aria-expanded"), "true");
  await spans.getByText("app.request_id").first().waitFor();
  await violations(page, "an open trace");
  await page.getByRole("button", { name: "Close the trace" }).click();
  assert.ok(await row.getByRole("button").evaluate((button) => button === document.activeElement), "the focus returns");

  let seconds = 0;
  await until("there is some history", page, async () => (seconds += 1) > 8, () => [...reads(2 + (seconds % 3)), order()]);

  // A fault set by a click opens the breaker on the page.
  await page.getByLabel("Service").selectOption("products");
  await page.getByRole("button", { name: "Set fault" }).click();
  await page.getByText("products: error not_ready, 100 % of all requests", { exact: true }).waitFor();
  const state = page.locator('#breakers [data-key="gateway → products"] .state');
  assert.equal(await state.textContent(), "closed");
  await until("the breaker opens", page, async () => (await state.textContent()).startsWith("open"), () => reads(8));
  await page.getByLabel("Only failed, retried or slow").check();
  const failed = page.locator("#request-rows tr", { hasText: "GET /products/{id}503" });
  const retried = failed.filter({ has: page.locator("td:nth-child(5).warn") }).first();
  await retried.getByRole("button").click();
  await page.locator("#records li").first().waitFor();
  await page.screenshot({ path: `${SCREENSHOTS}/console.png`, fullPage: true });
  await violations(page, "light colours");
  await page.emulateMedia({ colorScheme: "dark" });
  await violations(page, "dark colours");
  await page.screenshot({ path: `${SCREENSHOTS}/console-dark.png`, fullPage: true });
  await page.setViewportSize({ width: 390, height: 844 });
  const width = await page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(width <= 390, `the page is ${width} pixels wide on a phone`);
  await violations(page, "a phone");
  await page.screenshot({ path: `${SCREENSHOTS}/console-phone.png`, fullPage: true });

  const pending = await order();
  assert.equal(pending.status, 202);

  // Without the fault it closes again.
  await page.getByRole("button", { name: "Remove all faults" }).click();
  await page.getByText("No active faults.").waitFor();
  await until("the breaker closes", page, async () => (await state.textContent()) === "closed", () => reads(2));

  // The saga of the pending order is resumed in a trace that leads back to the request.
  await page.getByLabel("Only failed, retried or slow").uncheck();
  await page.locator("#request-rows tr", { hasText: "saga create_order" }).first().getByRole("button").click();
  await spans.getByRole("button", { name: "saga create_order" }).click();
  const pendingId = pending.headers.get("x-trace-id");
  await spans.getByRole("button", { name: pendingId }).click();
  await page.getByRole("heading", { name: `Trace ${pendingId}` }).waitFor();
  await spans.getByRole("button", { name: "POST /orders" }).waitFor();

  // A breaker is held open by a click.
  await page.getByRole("button", { name: "Hold open: orders → products" }).click();
  await page.locator('#breakers [data-key="orders → products"] .state', { hasText: "forced open" }).waitFor();
  await page.getByRole("button", { name: "Automatic: orders → products" }).click();
  await page.locator('#breakers [data-key="orders → products"] .state', { hasText: "closed" }).waitFor();

  assert.deepEqual(faults, [], "errors of the page");
} finally {
  await browser.close();
}
