//! Tracer provider: resource, sampler, and where finished spans go.

use opentelemetry::KeyValue;
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use palisade_resilience::{naming, trace::sampling::Sampling};

use super::{Config, Error, RecentTraces, sampler, spans};

/// Creates the provider of the process `service`, whose spans are those of its `services`.
pub(super) fn tracer_provider(
    (service, services): (&'static str, &[&'static str]),
    sampling: &Sampling,
    recent: Option<RecentTraces>,
    config: &Config,
) -> Result<SdkTracerProvider, Error> {
    let instance = uuid::Uuid::new_v4().to_string();
    let attributes = [
        KeyValue::new("service.namespace", naming::current().metric_prefix),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", instance),
        KeyValue::new("deployment.environment.name", config.environment.clone()),
    ];
    // `OTEL_RESOURCE_ATTRIBUTES` is read as well.
    let resource = Resource::builder().with_service_name(service).with_attributes(attributes).build();
    let mut provider = SdkTracerProvider::builder().with_resource(resource).with_sampler(sampler::sampler(sampling));
    if let Some(recent) = recent.clone() {
        provider = provider.with_span_processor(recent);
    }
    if let Some(exporter) = config.exporter()? {
        let processor = |service| Ok((service, spans::batch_processor(exporter.build()?, config.span_queue)));
        let processors = services.iter().copied().map(processor).collect::<Result<_, Error>>()?;
        let local = sampling.local.clone().zip(recent);
        provider = provider.with_span_processor(spans::ByService { processors, local });
    }
    Ok(provider.build())
}
