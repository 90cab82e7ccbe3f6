//! The daemon `avalond`: it notices publishes, records them and brings versions to where they are wanted.

pub mod api;
pub mod clock;
pub mod config;
pub mod events;
pub mod health;
pub mod log;
pub mod service;
pub mod tasks;
pub mod net;
pub mod publish;
pub mod command;
pub mod app;
pub mod signals;
pub mod reload;
pub mod certificate;
pub mod core;
pub mod project;
pub mod replicate;
pub mod daemon_api;
