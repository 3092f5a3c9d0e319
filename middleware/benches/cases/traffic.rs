//! Load generator: requests from many concurrent connections.

const CONNECTIONS: usize = 64;

pub(crate) async fn load(gateway: &str, token: &str, requests: usize) {
    let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(CONNECTIONS).build().expect("valid client settings");
    let workers = (0..CONNECTIONS).map(|_| {
        let request = http.get(format!("{gateway}/check")).bearer_auth(token);
        tokio::spawn(async move {
            for _ in 0..requests / CONNECTIONS {
                let response =
                    request.try_clone().expect("a request without a body can be cloned").send().await.expect("response received");
                assert!(response.status().is_success(), "{}", response.status());
                response.bytes().await.expect("complete response body");
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.expect("no worker panics");
    }
}
