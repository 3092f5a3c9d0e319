// gRPC: calls products and orders directly, bypassing the gateway.

import grpc from "k6/net/grpc";
import { countResponse, orders } from "../lib/api.ts";
import { commonOptions, report } from "../lib/report.ts";
import { duration, number, settings } from "../lib/settings.ts";
import { audit, createProducts } from "../lib/shop.ts";
import type { Catalogue } from "../lib/shop.ts";
import { latency, thresholds } from "../lib/thresholds.ts";
import { CUSTOMER, serviceToken } from "../lib/tokens.ts";
import { uuidv4 } from "../lib/uuid.ts";
import { randomElement } from "../lib/user_journeys.ts";

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
        grpc_req_duration: latency(1_000, 3_000),
    },
    ...commonOptions,
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
    const response = client.invoke(method, request, params);
    countResponse(method, expected.includes(response.status), response.status, () => JSON.stringify(response.error));
    return response;
}

export const setup = () => createProducts(20, 1_000_000);

export default function callServices(catalogue: Catalogue): void {
    if (!connected) {
        products.connect(settings.productsGrpc, { plaintext: true });
        ordersClient.connect(settings.ordersGrpc, { plaintext: true });
        connected = true;
    }
    const OK = [grpc.StatusOK];
    const product_id = randomElement(catalogue.products);
    invoke(products, "products", "palisade.products.v1.ProductsService/FindOne", { id: product_id }, OK);
    invoke(products, "products", "palisade.products.v1.ProductsService/FindAll", { limit: 10 }, OK);
    if (Math.random() < 0.3) {
        const order = { items: [{ product_id, quantity: 1 }], idempotency_key: uuidv4() };
        const response = invoke(ordersClient, "orders", "palisade.orders.v1.OrdersService/CreateOrder", order, OK);
        orders.add(1, { outcome: response.status === grpc.StatusOK ? "accepted" : "failed" });
    }
}

export const teardown = audit;
export const handleSummary = report("grpc");
