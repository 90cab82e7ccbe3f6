//! Nodes in one process, over UDP on the loopback, with certificates of a real studio CA.

mod connections;
mod exchange;
mod hostile;
mod limits;
mod revocation;
mod rights;
mod studio;
mod toy;
mod transfer;
