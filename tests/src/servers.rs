//! Real servers: each a namespace of its own with nginx, a DNS-like UDP server and a TCP talker.

use std::path::Path;
use std::time::Duration;

use crate::daemon::Daemon;
use crate::janitor::beside_me;
use crate::netns::Netns;
use crate::{Error, Result};

/// Port of nginx on every server.
pub const HTTP_PORT: u16 = 8080;
/// Port of the UDP server.
pub const DNS_PORT: u16 = 5353;
/// Port of the talker.
pub const TALK_PORT: u16 = 9000;
/// Port of the echo of numbered datagrams.
pub const STREAM_PORT: u16 = 7000;

/// Size of the file `/files/big` that nginx serves, bytes.
pub const BIG: usize = 4 << 20;

/// A host with real servers.
pub struct ServerHost {
    /// Its name, which the servers put into every answer.
    pub name: String,
    /// Its namespace.
    pub ns: Netns,
    /// Its address.
    pub address: String,
    /// nginx, when it runs.
    pub nginx: Option<Daemon>,
    /// The UDP server, the echo and the talker, when they run.
    pub others: Vec<Daemon>,
}

impl ServerHost {
    /// The host `name` at `address`; no server runs yet.
    #[must_use]
    pub fn new(name: &str, ns: Netns, address: String) -> Self {
        Self { name: name.into(), ns, address, nginx: None, others: Vec::new() }
    }

    /// `address:port`.
    #[must_use]
    pub fn at(&self, port: u16) -> String {
        format!("{}:{port}", self.address)
    }

    /// Starts nginx with its files below `folder`.
    ///
    /// # Errors
    /// When nginx is not there or does not listen within 5 s.
    pub fn start_nginx(&mut self, folder: &Path) -> Result<()> {
        let home = folder.join(format!("nginx-{}", self.name));
        std::fs::create_dir_all(&home).map_err(Error::file("create", &home))?;
        let big: Vec<u8> = (0..BIG).map(|i| (i * i >> 7).to_le_bytes()[0]).collect();
        let files = home.join("files");
        std::fs::create_dir_all(&files).map_err(Error::file("create", &files))?;
        std::fs::write(files.join("big"), big).map_err(Error::file("write", &files))?;
        let conf = home.join("nginx.conf");
        std::fs::write(&conf, self.nginx_conf(&home)).map_err(Error::file("write", &conf))?;
        let mut command = self.ns.command("nginx");
        command.arg("-p").arg(&home).arg("-c").arg(&conf).arg("-e").arg(home.join("error.log"));
        let mut nginx = Daemon::spawn(&format!("nginx-{}", self.name), folder, command, false)?;
        self.wait_listening(HTTP_PORT, &mut nginx)?;
        self.nginx = Some(nginx);
        Ok(())
    }

    /// Stops nginx: its port is closed afterwards.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop_nginx(&mut self) -> Result<()> {
        match self.nginx.take() {
            Some(mut nginx) => nginx.stop(Duration::from_secs(5)).map(drop),
            None => Ok(()),
        }
    }

    /// Starts the UDP server, the echo and the talker.
    ///
    /// # Errors
    /// When one is not built or does not start.
    pub fn start_others(&mut self, folder: &Path) -> Result<()> {
        let mut echo = self.ns.command(beside_me("udp-echo")?);
        echo.args(["--listen", &self.at(DNS_PORT), "--name", &self.name]);
        let mut stream = self.ns.command(beside_me("udp-stream")?);
        stream.args(["echo", "--listen", &self.at(STREAM_PORT)]);
        let mut talk = self.ns.command(beside_me("tcp-talk")?);
        talk.args(["server", "--listen", &self.at(TALK_PORT)]);
        for (kind, command) in [("udp-echo", echo), ("udp-stream", stream), ("tcp-talk", talk)] {
            let daemon = Daemon::spawn(&format!("{kind}-{}", self.name), folder, command, false)?;
            self.others.push(daemon);
        }
        let mut talker = self.others.pop().ok_or_else(|| Error::claim("the talker did not start"))?;
        self.wait_listening(TALK_PORT, &mut talker)?;
        self.others.push(talker);
        Ok(())
    }

    /// Starts one more UDP server, at another address of the host.
    ///
    /// # Errors
    /// When it is not built or does not start.
    pub fn start_dns_at(&mut self, folder: &Path, address: &str) -> Result<()> {
        let mut echo = self.ns.command(beside_me("udp-echo")?);
        echo.args(["--listen", &format!("{address}:{DNS_PORT}"), "--name", &self.name]);
        self.others.push(Daemon::spawn(&format!("udp-echo-{address}-{}", self.name), folder, echo, false)?);
        Ok(())
    }

    fn wait_listening(&self, port: u16, daemon: &mut Daemon) -> Result<()> {
        let what = format!("{} listening on {}", daemon.name(), self.at(port));
        let filter = format!("sport = :{port}");
        crate::wait::until(&what, Duration::from_secs(5), Duration::from_millis(20), || {
            daemon.expect_alive()?;
            let listening = crate::netns::run(self.ns.command("ss").args(["-Hltn", &filter]))?;
            Ok((!listening.stdout.is_empty()).then_some(()))
        })
    }

    fn nginx_conf(&self, home: &Path) -> String {
        let (name, listen, home) = (&self.name, HTTP_PORT, home.display());
        format!(
            "daemon off;\nuser root;\nworker_processes 1;\npid {home}/pid;\nerror_log {home}/error.log warn;\n\
             worker_rlimit_nofile 16384;\nevents {{ worker_connections 8192; }}\n\
             http {{\n  access_log off;\n  keepalive_requests 1000000;\n\
             \x20 client_body_temp_path {home}/body; proxy_temp_path {home}/proxy;\n\
             \x20 fastcgi_temp_path {home}/fastcgi; uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;\n\
             \x20 server {{\n    listen {listen} backlog=4096; listen [::]:{listen} backlog=4096 ipv6only=on;\n\
             \x20   location / {{ add_header X-Server {name} always; return 200 \"{name}\\n\"; }}\n\
             \x20   location /files/ {{ root {home}; dav_methods PUT; client_max_body_size 1g; }}\n\
             \x20   location /whoami {{ add_header X-Server {name}; return 200 \"$remote_addr:$remote_port\\n\"; }}\n\
             \x20 }}\n}}\n"
        )
    }
}
