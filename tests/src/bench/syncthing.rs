//! syncthing: two instances with homes of their own that know only each other.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    contender::{Contender, Round},
    ends::{Ends, FAR, NEAR, is_installed, until},
};
use crate::daemons::{process::Process, tree};

const START_LIMIT: Duration = Duration::from_secs(40);
const FOLDER: &str = "bench";

/// Both instances. Each round is a directory of its own in the shared folder, and stays: deletions would be synchronised too.
#[derive(Debug)]
pub struct Syncthing {
    near: Instance,
    far: Instance,
}

impl Syncthing {
    /// Starts both and waits until they are connected; nothing when syncthing is not installed.
    pub fn start(ends: &Ends, dir: &Path) -> Option<Self> {
        if !is_installed("syncthing") {
            return None;
        }
        let (near_dir, far_dir) = (dir.join("st-near"), dir.join("st-far"));
        let ids = [generate(&near_dir), generate(&far_dir)];
        let ports = [ends.free_port(NEAR), ends.free_port(FAR)];
        let address = |index: usize| format!("tcp://{}:{}", ends.address([NEAR, FAR][index]), ports[index]);
        let addresses = [address(0), address(1)];
        let near = Instance::start(ends, NEAR, near_dir, &ids, &addresses, 0);
        let far = Instance::start(ends, FAR, far_dir, &ids, &addresses, 1);
        let connected = || {
            let reply = far.ask("GET", "/rest/system/connections");
            reply.is_some_and(|reply| reply["connections"][&ids[0]]["connected"] == true)
        };
        if !until(START_LIMIT, connected) {
            println!("syncthing does not connect, that baseline is left out:\n{}", far.process.log.text());
            return None;
        }
        Some(Self { near, far })
    }
}

impl Contender for Syncthing {
    fn name(&self) -> String {
        "syncthing".into()
    }

    /// Measured from the end of the scan at the near end, as a publish is no part of a pull, until all is at the far end.
    fn fetch(&mut self, round: &Round<'_>) -> Option<Duration> {
        let inside = format!("round{}", round.number);
        tree::copy(round.source, &self.near.folder().join(&inside));
        super::ends::settle_disk();
        let done = self.far.need()?;
        self.near.ask("POST", &format!("/rest/db/scan?folder={FOLDER}"))?;
        let start = Instant::now();
        let wanted = done.0 + round.load.bytes();
        let has_all = || self.far.need().is_some_and(|(bytes, needed)| bytes >= wanted && needed == 0);
        let whole = until(round.limit, has_all);
        let time = start.elapsed();
        if !whole {
            println!("syncthing did not end within {:?}", round.limit);
        }
        whole.then_some(time)
    }
}

#[derive(Debug)]
struct Instance {
    home: PathBuf,
    process: Process,
}

impl Instance {
    fn start(
        ends: &Ends,
        end: &str,
        home: PathBuf,
        ids: &[String; 2],
        addresses: &[String; 2],
        me: usize,
    ) -> Self {
        fs::create_dir_all(home.join("folder/.stfolder")).expect("the disk has room");
        fs::write(home.join("config.xml"), config(&home, ids, addresses, me)).expect("the disk has room");
        let mut command = ends.server(end, "syncthing");
        command.args(["serve", "--no-browser", "--logflags=0"]).arg(format!("--home={}", home.display()));
        // Without the process that watches over it, so that who ends this one ends it.
        command.env("STMONITORED", "yes").env("STNOUPGRADE", "1").env("HOME", &home);
        let process = Process::start(&mut command);
        let instance = Self { home, process };
        until(START_LIMIT, || instance.ask("GET", "/rest/system/ping").is_some());
        instance
    }

    fn folder(&self) -> PathBuf {
        self.home.join("folder")
    }

    /// Returns how many bytes the folder has here and how many it needs.
    fn need(&self) -> Option<(u64, u64)> {
        let reply = self.ask("GET", &format!("/rest/db/status?folder={FOLDER}"))?;
        let needed =
            reply["needBytes"].as_u64()? + reply["needFiles"].as_u64()? + reply["needDeletes"].as_u64()?;
        Some((reply["localBytes"].as_u64()?, needed))
    }

    /// Asks the local API, which listens on a Unix socket here.
    fn ask(&self, method: &str, target: &str) -> Option<Value> {
        let mut stream = UnixStream::connect(self.home.join("gui.sock")).ok()?;
        write!(stream, "{method} {target} HTTP/1.0\r\nHost: localhost\r\nX-API-Key: bench\r\n\r\n").ok()?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).ok()?;
        let (head, body) = reply.split_once("\r\n\r\n")?;
        if !head.contains(" 200 ") {
            return None;
        }
        Some(serde_json::from_str(body).unwrap_or(Value::Null))
    }
}

/// Makes keys, and returns the device's id.
fn generate(home: &Path) -> String {
    let home = format!("--home={}", home.display());
    let run = |args: &[&str]| {
        let output = Command::new("syncthing").args(args).env("HOME", "/nonexistent").output();
        output.expect("syncthing starts").stdout
    };
    run(&["generate", "--no-default-folder", "--skip-port-probing", &home]);
    String::from_utf8_lossy(&run(&["serve", "--device-id", &home])).trim().to_owned()
}

fn config(home: &Path, ids: &[String; 2], addresses: &[String; 2], me: usize) -> String {
    let devices: String = ids.iter().map(|id| format!("<device id=\"{id}\"/>")).collect();
    let known: String = ids
        .iter()
        .zip(addresses)
        .map(|(id, address)| {
            format!("<device id=\"{id}\" name=\"{address}\" compression=\"metadata\"><address>{address}</address></device>")
        })
        .collect();
    let kind = if me == 0 { "sendonly" } else { "receiveonly" };
    let home = home.display();
    let listen = &addresses[me];
    format!(
        "<configuration version=\"36\"><folder id=\"{FOLDER}\" label=\"{FOLDER}\" path=\"{home}/folder\" \
         type=\"{kind}\" rescanIntervalS=\"86400\" fsWatcherEnabled=\"false\">{devices}</folder>{known}<gui \
         enabled=\"true\" tls=\"false\"><address>{home}/gui.sock</address><apikey>bench</apikey></gui><options>\
         <listenAddress>{listen}</listenAddress><globalAnnounceEnabled>false</globalAnnounceEnabled>\
         <localAnnounceEnabled>false</localAnnounceEnabled><relaysEnabled>false</relaysEnabled>\
         <natEnabled>false</natEnabled><startBrowser>false</startBrowser><urAccepted>-1</urAccepted>\
         <autoUpgradeIntervalH>0</autoUpgradeIntervalH><crashReportingEnabled>false</crashReportingEnabled>\
         <limitBandwidthInLan>false</limitBandwidthInLan><reconnectionIntervalS>1</reconnectionIntervalS>\
         </options></configuration>"
    )
}
