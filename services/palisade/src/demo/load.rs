//! Requests of the demo: mostly reads, some orders, and cancellations of earlier orders.

use std::{cell::RefCell, time::Duration};

use anyhow::{Context as _, bail};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::Options;

/// Products of the demo.
const PRODUCTS: [(&str, f64); 4] = [("Desk lamp", 24.5), ("Bookshelf", 89.0), ("Office chair", 149.9), ("Notebook", 3.2)];
/// Stock of each product, enough for an hour of orders.
const QUANTITY: u32 = 100_000;
const TIMEOUT: Duration = Duration::from_secs(15);
/// Orders that can be cancelled later. More are left as they are.
const MAX_ORDERS: usize = 100;

/// Client of the shop.
pub(super) struct Shop<'a> {
    http: reqwest::Client,
    options: &'a Options,
    products: Vec<String>,
    orders: RefCell<Vec<String>>,
}

impl<'a> Shop<'a> {
    /// Creates the products.
    pub(super) async fn open(options: &'a Options) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build()?;
        let mut shop = Self { http, options, products: Vec::new(), orders: RefCell::default() };
        for (name, price) in PRODUCTS {
            let product = json!({ "name": name, "price": price, "quantity": QUANTITY, "category": "demo" });
            let response = shop.request(Method::POST, "/products", Some(&product)).send().await;
            let response = response.with_context(|| format!("cannot reach {}: start palisade first", options.url))?;
            let status = response.status();
            let body = response.text().await?;
            let Some(id) = id_of(&body).filter(|_| status.is_success()) else { bail!("{} answered {status}: {body}", options.url) };
            shop.products.push(id);
        }
        Ok(shop)
    }

    pub(super) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// Sends the request of this number and returns its status.
    pub(super) async fn send(&self, number: usize) -> String {
        let product = &self.products[number % self.products.len()];
        let request = match number % 10 {
            0 | 3 | 6 => {
                let order = json!({ "items": [{ "productId": product, "quantity": 1 + number % 3 }] });
                self.request(Method::POST, "/orders", Some(&order))
            }
            8 => match self.with_orders(Vec::pop) {
                Some(order) => self.request(Method::PUT, &format!("/orders/{order}/status"), Some(&json!({ "status": "CANCELLED" }))),
                None => self.request(Method::GET, "/orders", None),
            },
            9 => self.request(Method::GET, "/products?category=demo", None),
            _ => self.request(Method::GET, &format!("/products/{product}"), None),
        };
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) if error.is_timeout() => return "timeout".to_owned(),
            Err(_) => return "no response".to_owned(),
        };
        let status = response.status().as_u16();
        let body = response.text().await.unwrap_or_default();
        if status == 201
            && let Some(order) = id_of(&body)
        {
            self.with_orders(|orders| {
                if orders.len() < MAX_ORDERS {
                    orders.push(order);
                }
            });
        }
        status.to_string()
    }

    fn with_orders<T>(&self, f: impl FnOnce(&mut Vec<String>) -> T) -> T {
        f(&mut self.orders.borrow_mut())
    }

    fn request(&self, method: Method, path: &str, body: Option<&Value>) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.options.url)).bearer_auth(&self.options.token);
        match body {
            Some(body) => request.json(body),
            None => request,
        }
    }
}

/// Returns the `id` of a product or an order.
fn id_of(body: &str) -> Option<String> {
    serde_json::from_str::<Value>(body).ok()?.get("id")?.as_str().map(str::to_owned)
}
