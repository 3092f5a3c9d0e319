//! Criterion benchmark of every case: `cargo bench -p palisade-middleware --bench layers`.
#![expect(clippy::expect_used, reason = "a benchmark stops at the first error")]

#[path = "cases/all.rs"]
mod cases;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

fn layers(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("the runtime starts");
    let _runtime_context = runtime.enter();
    for mut case in cases::all() {
        let mut group = criterion.benchmark_group(format!("{:?}", case.group));
        group.bench_function(case.name, |bencher| bencher.iter(&mut case.run_once));
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(50).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = layers
}
criterion_main!(benches);
