//! Weir, tested from outside: one binary, a module for each thing that is promised.

mod api;
mod author;
mod chaos;
mod cli;
mod cluster;
mod contract;
mod copy;
mod crash;
mod disk;
mod door;
mod egress;
mod engine;
mod errors;
mod fence;
mod guests;
mod import;
mod kill;
mod openapi;
mod original;
mod plugins;
mod sandbox;
