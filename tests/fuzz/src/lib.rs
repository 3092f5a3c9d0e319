//! Fuzz targets of Palisade: one for each parser of foreign input, and for each state machine with
//! sequences of events.
//!
//! A test run replays the corpus (`corpus/<target>/`) and a fixed number of mutations of it, the
//! same in every run. `make fuzz TARGET=… SECONDS=…` runs a target with libFuzzer. A failing input
//! becomes a file of the corpus.
