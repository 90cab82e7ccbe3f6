//! A machine becomes a node: by an invite, off line, and not at all.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use avalon_certs::{ALPN, join::join_client_config};
use avalon_protocol::{
    access::{JoinToken, Role},
    close_code::CloseCode,
    control::{ErrorCode, StatusReply},
    exit_code::ExitCode,
    mode::ProjectMode,
};
use avalon_tests::daemons::{
    PATIENCE, Studio,
    config::NodeConfig,
    daemon::{Daemon, Said, is_root, own_all, run},
    process::Process,
};
use quinn::{ConnectionError, Endpoint, crypto::rustls::QuicClientConfig};

use crate::support::{HOME, LONDON, model, publish_model, studio};

/// A server in london that issues for the studio.
fn office(studio: &Studio, extra: &str) -> Daemon {
    let mut london = studio.node(LONDON, ProjectMode::Mirror);
    london.config.extra = extra.to_owned();
    studio.issue_as(LONDON, Role::Site, &london.config.identity_dir());
    studio.delegate(LONDON, &london.config.identity_dir());
    london.start();
    london
}

/// Has an invite made, and returns its token.
fn invite(london: &Daemon, more: &[&str]) -> String {
    let said = london.ctl(&[&["invite", "--site", "home"], more].concat()).expect(ExitCode::Ok);
    let token = said.stdout.trim().to_owned();
    assert!(token.starts_with("avalonjoin1-") && !token.contains('\n'), "{said:?}");
    token
}

/// A machine that is to join, with all that it will have in one directory.
struct Machine {
    dir: PathBuf,
    studio_programs: avalon_tests::daemons::Programs,
}

impl Machine {
    fn new(studio: &Studio, name: &str) -> Self {
        let dir = studio.dir().join(name);
        fs::create_dir_all(&dir).unwrap();
        Self { dir, studio_programs: studio.programs().clone() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn join(&self, args: &[&str]) -> Said {
        self.join_by(args, None)
    }

    fn join_by(&self, args: &[&str], stdin: Option<&str>) -> Said {
        let mut command = match stdin {
            None => Command::new(&self.studio_programs.avalonctl),
            Some(stdin) => {
                fs::write(self.at("stdin"), format!("{stdin}\n")).unwrap();
                let mut command = Command::new("sh");
                command.args(["-c", "exec \"$0\" \"$@\" < stdin"]).arg(&self.studio_programs.avalonctl);
                command
            }
        };
        command
            .env("AVALOND", &self.studio_programs.avalond)
            .env_remove("AVALON_PROJECTS")
            .current_dir(&self.dir);
        command.arg("join").args(args).arg("--root").arg(self.at("root"));
        command.arg("--state-dir").arg(self.at("state")).arg("--config").arg(self.at("first.toml"));
        command.args(["--listen", "127.0.0.1:0"]);
        run(&mut command)
    }

    /// The daemon of it, as tests configure daemons.
    fn daemon(&self, node: &str, peer: &Daemon) -> Daemon {
        let mut config = NodeConfig::new(node, &self.dir, ProjectMode::OnDemand);
        config.peers = vec![peer.listen()];
        Daemon::new(self.studio_programs.clone(), config)
    }
}

fn until_known(daemon: &Daemon, version: u32) {
    daemon.until("the version is known", |api| api.locate_one(&model(version)).map(drop));
}

#[test]
fn two_commands_make_a_machine_a_node_with_a_configuration_that_starts() {
    let studio = studio();
    let london = office(&studio, "");
    publish_model(&london, 1, b"one");
    let token = invite(&london, &["--role", "workstation", "--ttl", "1h", "--node", "ws1"]);
    let machine = Machine::new(&studio, "new");
    // By stdin, so that nobody else on the machine reads it.
    let said = machine.join_by(&["-"], Some(&token)).expect(ExitCode::Ok);
    assert!(
        said.stdout.contains("this machine is ws1@home now, as workstation, let in by srv@london"),
        "{said:?}"
    );
    assert!(said.stdout.contains("avalond --config "), "{said:?}");
    let mode =
        |name: &str| machine.at("state/identity").join(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("node.key"), 0o600);
    assert!(!machine.at("state/identity/node.key.new").exists());

    let config = machine.at("first.toml");
    let check =
        run(Command::new(&studio.programs().avalond).arg("--config").arg(&config).arg("--check-config"));
    check.expect(ExitCode::Ok);
    let _process = Process::start(Command::new(&studio.programs().avalond).arg("--config").arg(&config));
    london.until_connected(HOME);
    let mut home = machine.daemon(HOME, &london);
    home.config.socket = machine.at("state/api.sock");
    let StatusReply { node, site, .. } = home.api().status();
    assert_eq!(format!("{node}@{site}"), HOME);
    until_known(&home, 1);
    home.api().pull(&model(1)).unwrap();
    london.until_complete_at(&model(1), HOME);
    assert_eq!(
        fs::read(machine.at("root/lantern/assets/robot/publish/modelDefault/v001/modelDefault.usdc"))
            .unwrap(),
        b"one"
    );
    let invites = london.ctl(&["invites", "--json"]).good();
    assert_eq!(
        (&invites["invites"][0]["state"], &invites["invites"][0]["node"]),
        (&"used".into(), &"ws1".into())
    );
    let log = london.log();
    assert!(log.contains("a machine joined the studio") && !log.contains(&token), "the token is in no log");
}

#[test]
fn join_with_start_installs_the_service_of_who_joins_and_says_what_to_run() {
    /// Nobody: so that nothing of the machine that tests is touched.
    const USER: u32 = 65_534;
    let studio = studio();
    let london = office(&studio, "");
    let machine = Machine::new(&studio, "new");
    let (home, units) = (machine.at("home"), machine.at("home/.config/systemd/user"));
    fs::create_dir_all(&home).unwrap();
    if is_root() {
        fs::set_permissions(studio.dir(), fs::Permissions::from_mode(0o755)).unwrap();
        own_all(&machine.dir, USER);
    }
    let join = |token: &str| {
        let mut command = Command::new(&studio.programs().avalonctl);
        command.env("AVALOND", &studio.programs().avalond).env("HOME", &home).current_dir(&machine.dir);
        for name in ["AVALON_PROJECTS", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "XDG_DATA_HOME"] {
            command.env_remove(name);
        }
        if is_root() {
            std::os::unix::process::CommandExt::uid(&mut command, USER);
        }
        run(command.args(["join", "--start", "--node", "ws1", "--listen", "127.0.0.1:0", token]))
    };
    let refused = join(&invite(&london, &[]).replace('a', "b"));
    assert!(refused.code != 0 && !units.exists(), "nothing is installed of what did not join: {refused:?}");
    let said = join(&invite(&london, &[])).expect(ExitCode::Ok);
    assert!(said.stdout.contains("this machine is ws1@home now"), "{said:?}");
    assert!(said.stdout.contains("systemctl --user enable --now avalond"), "what is to be run: {said:?}");
    let unit = fs::read_to_string(units.join("avalond.service")).unwrap();
    let config = home.join(".config/avalond/avalond.toml");
    assert!(unit.contains(&config.display().to_string()), "{unit}");
    let check =
        run(Command::new(&studio.programs().avalond).arg("--config").arg(&config).arg("--check-config"));
    check.expect(ExitCode::Ok);
}

#[test]
fn a_token_lets_one_machine_in_and_a_revoked_or_damaged_one_nobody() {
    let studio = studio();
    let london = office(&studio, "");
    let token = invite(&london, &[]);
    let first = Machine::new(&studio, "first");
    first.join(&[&token, "--node", "ws1"]).expect(ExitCode::Ok);
    let second = Machine::new(&studio, "second");
    let said = second.join(&[&token, "--node", "ws2"]).expect(ExitCode::Denied);
    assert!(said.stderr.contains("the invite was used"), "{said:?}");
    assert!(!second.at("first.toml").exists() && !second.at("state/identity/node.pem").exists());

    // A name is given once, and trying another does not need another invite.
    let token = invite(&london, &[]);
    let said = second.join(&[&token, "--node", "ws1"]).expect(ExitCode::Denied);
    assert!(said.stderr.contains("the name ws1@home cannot be given"), "{said:?}");
    second.join(&[&token, "--node", "ws2"]).expect(ExitCode::Ok);
    let said = second.join(&[&token]).expect(ExitCode::Usage);
    assert!(said.stderr.contains("first.toml exists already"), "{said:?}");

    let token = invite(&london, &[]);
    let id = JoinToken::decode(&token).unwrap().invite.to_string();
    london.ctl(&["invite", "--revoke", &id]).expect(ExitCode::Ok);
    let third = Machine::new(&studio, "third");
    let said = third.join(&[&token]).expect(ExitCode::Denied);
    assert!(said.stderr.contains("takes no such invite"), "{said:?}");
    let said = third.join(&[&token[..token.len() - 1]]).expect(ExitCode::Usage);
    assert!(said.stderr.contains("the whole line") || said.stderr.contains("checksum"), "{said:?}");
    let said = london.ctl(&["invite", "--revoke", &id]).expect(ExitCode::NotFound);
    assert!(said.stderr.contains("avalonctl invites"), "{said:?}");
}

#[test]
fn a_machine_says_nothing_to_a_server_of_another_studio() {
    let studio = studio();
    let london = office(&studio, "");
    let token = JoinToken::decode(&invite(&london, &[])).unwrap();
    let other = JoinToken { fingerprint: [7; 32], ..token.clone() }.encode().unwrap();
    let machine = Machine::new(&studio, "new");
    let said = machine.join(&[&other]).expect(ExitCode::Denied);
    assert!(said.stderr.contains("belongs to another studio CA than the token"), "{said:?}");
    let invites = london.ctl(&["invites", "--json"]).good();
    assert_eq!(invites["invites"][0]["state"], "open", "nothing was asked for");
    let late = JoinToken { expires_at_s: 1, ..token }.encode().unwrap();
    let said = machine.join(&[&late]).expect(ExitCode::Denied);
    assert!(said.stderr.contains("has expired"), "{said:?}");
}

#[test]
fn the_key_of_an_invite_opens_nothing_but_joining() {
    let studio = studio();
    let london = office(&studio, "");
    let token = JoinToken::decode(&invite(&london, &[])).unwrap();
    let mut tls = join_client_config(&token.seed).unwrap();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(Arc::new(tls)).unwrap()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ended = runtime.block_on(async {
        let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = london.listen().parse().unwrap();
        let connection = endpoint.connect_with(config, address, "x.avalon.internal").unwrap().await.unwrap();
        tokio::time::timeout(PATIENCE, connection.closed()).await.unwrap()
    });
    let ConnectionError::ApplicationClosed(frame) = ended else { panic!("{ended:?}") };
    assert_eq!(CloseCode::from_code(frame.error_code.into_inner()), Some(CloseCode::Identity));
    assert_eq!(london.ctl(&["invites", "--json"]).good()["invites"][0]["state"], "open");
}

#[test]
fn a_node_that_may_not_issue_says_who_lets_it() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let said = london.ctl(&["invite", "--site", "home", "--json"]).expect(ExitCode::Denied);
    let error: avalon_protocol::control::ApiError = serde_json::from_str(&said.stderr).unwrap();
    assert_eq!(error.code, ErrorCode::Denied);
    assert!(error.hint.unwrap().contains("avalonctl ca delegate --dir CA_DIR --node srv@london"));
    let office = office(&studio, "");
    let said = office.ctl(&["invite", "--site", "home", "--role", "admin"]).expect(ExitCode::Usage);
    assert!(said.stderr.contains("nobody joins as admin by an invite"), "{said:?}");
}

#[test]
fn a_machine_joins_off_line_by_a_request_and_a_certificate() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let machine = Machine::new(&studio, "new");
    machine.join(&["--request", "--node", "ws1", "--site", "home"]).expect(ExitCode::Ok);
    let (request, certificate) = (machine.at("ws1-home.csr"), machine.at("ws1.pem"));
    let key = |dir: &Path| fs::read(dir.join("node.key.new")).unwrap();
    let before = key(&machine.at("state/identity"));
    machine.join(&["--request", "--node", "ws1", "--site", "home"]).expect(ExitCode::Ok);
    assert_eq!(key(&machine.at("state/identity")), before, "a second request is for the same key");
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let ca = text(&studio.authority_dir());
    let sign = ["ca", "sign", "--dir", &ca, "--request", &text(&request), "--role", "workstation"];
    let as_ws1 = ["--node", "ws1", "--site", "home", "--out", &text(&certificate)];
    london.ctl(&[&sign[..], &as_ws1].concat()).expect(ExitCode::Ok);
    let take =
        ["--certificate", &text(&certificate), "--with-project", "lantern", "--peer", &london.listen()];
    let said = machine.join(&take).expect(ExitCode::Ok);
    assert!(said.stdout.contains("this machine is ws1@home now, as workstation"), "{said:?}");
    let mut home = machine.daemon(HOME, &london);
    home.start();
    london.until_connected(HOME);
    let said = Machine::new(&studio, "other").join(&take).expect(ExitCode::Denied);
    assert!(said.stderr.contains("avalonctl join --request"), "{said:?}");
}

/// Certificates of six seconds: each is renewed after four, and between two dials nothing has time to expire. More often with
/// `AVALON_ROTATIONS`.
#[test]
fn certificates_are_renewed_ten_times_while_versions_come_and_go() {
    let studio = studio();
    let london = office(&studio, "certificate_validity = \"6s\"\n");
    let machine = Machine::new(&studio, "new");
    machine.join(&[&invite(&london, &["--node", "ws1"])]).expect(ExitCode::Ok);
    let mut home = machine.daemon(HOME, &london);
    home.start();
    london.until_connected(HOME);
    let renewed = |home: &Daemon| home.log().matches("the certificate of this node was renewed").count();
    let rotations = std::env::var("AVALON_ROTATIONS").map_or(10, |times| times.parse().unwrap());
    let mut version = 0;
    while renewed(&home) < rotations {
        version += 1;
        // Each way: a node whose key has changed publishes, and fetches.
        let publisher = if version % 2 == 0 { &london } else { &home };
        publish_model(publisher, version, &vec![u8::try_from(version % 251).unwrap(); 3 << 20]);
        if version % 2 == 0 {
            until_known(&home, version);
            home.api().pull(&model(version)).unwrap();
        }
        london.until_complete_at(&model(version), if version % 2 == 0 { HOME } else { LONDON });
    }
    let failed = |daemon: &Daemon| daemon.api().jobs().into_iter().filter(|job| job.error.is_some()).count();
    assert_eq!((failed(&home), failed(&london)), (0, 0));
    assert!(!home.log().contains("peer connection ended"), "no connection was dropped");
    // What was signed by all those keys is one feed, for whoever reads it anew.
    let montreal = studio.on_demand("srv@montreal", &[&london]);
    montreal.until("it knows all of them", |api| {
        (api.list().versions.len() == usize::try_from(version).unwrap()).then_some(())
    });
    for number in [1, version] {
        montreal.api().pull(&model(number)).unwrap();
        montreal.until_complete_at(&model(number), "srv@montreal");
    }
}
