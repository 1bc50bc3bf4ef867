//! Plays the machine through whole days of a daemon, with a virtual clock, kernel, children and clients.
//!
//! A run is a function of a [`Plan`](plan::Plan): settings, and what happens when. [`World`](world::World) is everything
//! around the parent, [`Driver`](driver::Driver) stands in for the parent, and [`Rules`](rules::Rules) judge each step. What
//! breaks a rule is made as short as it can be and printed as one line, which replays it. Lines that once broke a rule are
//! kept in `kept.txt`.
//!
//! `LENORE_SIM_HOURS=10000 cargo test --release --lib machine::sim` plays for so many virtual hours, `LENORE_SEED=7` begins
//! with that seed, `LENORE_SEED=now` with a new one, and `LENORE_SIM_PLAN='...'` writes down all of one plan.

mod acts;
mod brief;
mod checks;
mod child;
mod clients;
mod crowds;
mod decisions;
mod dice;
mod differential;
mod draw;
mod driver;
mod exhaustive;
mod life;
mod looks;
mod messages;
mod outside;
mod plan;
mod reload;
mod rules;
mod run;
mod schedule;
mod shrink;
mod successor;
mod tests;
mod theme;
mod trace;
mod upgrade;
mod world;
