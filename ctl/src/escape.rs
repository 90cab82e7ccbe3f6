//! Names and messages as a terminal may have them; JSON does not go through here: there the text stays what it is.

pub(crate) use avalon_protocol::shown::escape;
