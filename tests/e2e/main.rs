//! End-to-end tests: real daemons, clients, registries and images. One module for each area.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod api;
mod cli_archives;
mod cli_bombs;
mod cli_check;
mod cli_containers;
mod cli_disk;
mod cli_documents;
mod cli_faults;
mod cli_full_disks;
mod cli_images;
mod cli_layers;
mod cli_pulls;
mod cli_registries;
mod cli_run;
mod cli_scripts;
mod ctr_events;
mod ctr_images;
mod ctr_run;
mod ctr_snapshotters;
mod ctr_terminal;
mod ctr_tour;
mod daemon;
mod docker;
mod groups;
mod profile;
mod proxies;
mod python;
mod restart;
mod restart_many;
mod rust_client;
mod snapshotters;
mod sockets;
