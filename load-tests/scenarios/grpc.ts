// gRPC: calls products and orders directly, bypassing the gateway.

import grpc from "k6/net/grpc";
import { assertStatus, orders } from "../lib/api.ts";
import { report, summaryTrendStats } from "../lib/report.ts";
import { duration, number, settings } from "../lib/settings.ts";
import { audit, stock } from "../lib/shop.ts";
import type { Shelf } from "../lib/shop.ts";
import { thresholds } from "../lib/thresholds.ts";
import { CUSTOMER, serviceToken } from "../lib/tokens.ts";
import { uuidv4 } from "../lib/uuid.ts";
import { any } from "../lib/visit.ts";

const RATE = number("RATE", 40);

export const options = {
    scenarios: {
        grpc: {
            executor: "constant-arrival-rate",
            rate: RATE,
            duration: duration("DURATION", "30s"),
            preAllocatedVUs: number("VUS", 20),
            maxVUs: 4 * number("VUS", 20),
        },
    },
    thresholds: {
        ...thresholds({ iterations: number("MIN_ITERATIONS", 5 * RATE), p95: 2_000, p99: 4_000, dropped: RATE }),
        grpc_req_duration: ["p(95)<1000", "p(99)<3000"],
    },
    summaryTrendStats,
};

const products = new grpc.Client();
const ordersClient = new grpc.Client();
products.load(["../../proto"], "palisade/products/v1/products_service.proto");
ordersClient.load(["../../proto"], "palisade/orders/v1/orders_service.proto");
let connected = false;

const tokens = new Map<string, string>();

function invoke(client: grpc.Client, audience: "products" | "orders", method: string, request: object, expected: number[]) {
    if (!tokens.has(audience)) tokens.set(audience, serviceToken(audience, CUSTOMER));
    const params = { metadata: { authorization: `Bearer ${tokens.get(audience)}` }, tags: { name: method }, timeout: "10s" };
    const answer = client.invoke(method, request, params);
    assertStatus(method, expected.includes(answer.status), answer.status, () => JSON.stringify(answer.error));
    return answer;
}

export const setup = () => stock(20, 1_000_000);

export default function viaGrpc(shelf: Shelf): void {
    if (!connected) {
        products.connect(settings.productsGrpc, { plaintext: true });
        ordersClient.connect(settings.ordersGrpc, { plaintext: true });
        connected = true;
    }
    const OK = [grpc.StatusOK];
    const product_id = any(shelf.products);
    invoke(products, "products", "palisade.products.v1.ProductsService/FindOne", { id: product_id }, OK);
    invoke(products, "products", "palisade.products.v1.ProductsService/FindAll", { limit: 10 }, OK);
    if (Math.random() < 0.3) {
        const order = { items: [{ product_id, quantity: 1 }], idempotency_key: uuidv4() };
        const answer = invoke(ordersClient, "orders", "palisade.orders.v1.OrdersService/CreateOrder", order, OK);
        orders.add(1, { outcome: answer.status === grpc.StatusOK ? "accepted" : "failed" });
    }
}

export const teardown = audit;
export const handleSummary = report("grpc");
