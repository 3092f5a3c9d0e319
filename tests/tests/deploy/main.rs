//! What Kubernetes is given, as far as it can be told without a cluster: fields, hops, bounds, settings, and that kustomize finds its files.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod api;
mod kustomization;
mod leaving;
mod monitoring;
mod network;
mod operator;
mod pods;
mod scaling;
mod settings;
mod tree;
mod words;
