//! The daemon `avalond`: it notices publishes, records them and brings versions to where they are wanted.

pub mod api;
pub mod app;
pub mod certificate;
pub mod clock;
pub mod command;
pub mod config;
pub mod core;
pub mod daemon_api;
pub mod events;
pub mod health;
pub mod log;
pub mod net;
pub mod project;
pub mod publish;
pub mod reload;
pub mod replicate;
pub mod service;
pub mod signals;
pub mod tasks;
