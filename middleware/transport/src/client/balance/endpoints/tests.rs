use super::*;

fn endpoints(url: &str) -> Endpoints {
    Endpoints(Arc::new(
        Shared::new("products", &EndpointConfig::default(), "the configuration", Address::list(url.split(',')).unwrap()).unwrap(),
    ))
}

fn addresses(endpoints: &Endpoints) -> Vec<String> {
    endpoints.status().into_iter().map(|status| status.address).collect()
}

#[tokio::test(start_paused = true)]
async fn retained_endpoint_keeps_statistics() {
    let endpoints = endpoints("http://a:1,http://b:1");
    let before = endpoints.0.nodes.load_full();
    before.iter().for_each(|node| node.load().increment_in_flight());
    before[0].breaker().unwrap().open_for(Duration::from_mins(1));
    let removed = before[1].breaker().unwrap();
    endpoints.set(["http://a:1", "http://c:1"]).unwrap();
    let [retained, new] = endpoints.status().try_into().unwrap();
    assert_eq!((retained.breaker, retained.ejected, retained.in_flight), (Some(State::Open), true, 1));
    assert_eq!((new.address.as_str(), new.breaker, new.in_flight), ("c:1", Some(State::Closed), 0));
    assert_eq!(removed.state(), State::Disabled);
}

#[tokio::test(start_paused = true)]
async fn removed_endpoint_frees_ejection_slot() {
    let endpoints = endpoints("http://a:1,http://b:1");
    let open = |index: usize| endpoints.0.nodes()[index].breaker().unwrap().open_for(Duration::from_mins(1));
    open(0);
    endpoints.set(["http://b:1", "http://c:1"]).unwrap();
    open(1);
    let ejected: Vec<_> = endpoints.status().into_iter().map(|status| status.ejected).collect();
    assert_eq!(ejected, [false, true]);
}

#[tokio::test(start_paused = true)]
async fn single_endpoint_has_no_breaker() {
    let endpoints = endpoints("http://a:1");
    endpoints.0.nodes()[0].load().increment_in_flight();
    for (set, breaker) in [(vec!["http://a:1", "http://b:1"], Some(State::Closed)), (vec!["http://a:1"], None)] {
        endpoints.set(set).unwrap();
        let status = &endpoints.status()[0];
        assert_eq!((status.breaker, status.in_flight), (breaker, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn invalid_address_list_is_ignored() {
    let endpoints = endpoints("http://a:1");
    for bad in [vec![], vec!["http://b:1", "c:1"]] {
        assert!(endpoints.set(bad).unwrap_err().to_string().starts_with("url "));
    }
    endpoints.set(["http://b:1", "http://a:1", "http://b:1"]).unwrap();
    assert_eq!(addresses(&endpoints), ["b:1", "a:1"]);
}

#[tokio::test(start_paused = true)]
async fn breaker_series_reset_when_endpoint_is_removed() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let prometheus = recorder.handle();
    let state = |breaker: &str, endpoint: &str, state: u32| {
        let line = format!("palisade_breaker_state{{target=\"products\",scope=\"{breaker}\",endpoint=\"{endpoint}\"}} {state}\n");
        assert!(prometheus.render().contains(&line), "{line} in {}", prometheus.render());
    };
    metrics::with_local_recorder(&recorder, || {
        let _target = palisade_resilience::circuit_breaker::CircuitBreakerLayer::new(
            "products",
            &palisade_resilience::circuit_breaker::Config::default(),
        );
        let endpoints = endpoints("http://a:1,http://b:1");
        endpoints.0.nodes().iter().for_each(|node| node.breaker().unwrap().open_for(Duration::from_mins(1)));
        state("target", "", 0);
        state("endpoint", "a:1", 1);
        state("endpoint", "b:1", 1);
        for enforced in ["true", "false"] {
            let line = format!("palisade_outlier_ejections{{target=\"products\",enforced=\"{enforced}\"}} 1\n");
            assert!(prometheus.render().contains(&line), "{line} in {}", prometheus.render());
        }
        endpoints.set(["http://b:1", "http://c:1"]).unwrap();
        state("endpoint", "a:1", 0);
        state("endpoint", "b:1", 1);
        state("endpoint", "c:1", 0);
    });
}

#[tokio::test(start_paused = true)]
async fn removed_endpoints_give_their_series_back() {
    let endpoints = endpoints("http://a:1,http://b:1");
    for port in 1_000..1_100 {
        endpoints.set(["http://a:1", &format!("http://b:{port}")]).unwrap();
    }
    let mut labelled: Vec<_> = endpoints.0.labelled.lock().keys().map(ToString::to_string).collect();
    labelled.sort_unstable();
    assert_eq!(labelled, ["a:1", "b:1099"]);
}

#[tokio::test(start_paused = true)]
async fn endpoint_series_are_bounded() {
    let endpoints = endpoints("http://a:1,http://b:1");
    let many: Vec<_> = (1_000..1_100).map(|port| format!("http://c:{port}")).collect();
    endpoints.set(many.iter().map(String::as_str)).unwrap();
    assert_eq!(endpoints.0.labelled.lock().len(), MAX_LABELLED_ENDPOINTS);
}
