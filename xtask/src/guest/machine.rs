//! One life of the machine: booted with what is to be tested, until it switches itself off.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use super::{outside::Outside, root::Root};
use crate::{qemu, transcript};

/// How long it may live. It takes some minutes on two processors.
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// What the machine's private network is to the host: ports of the loopback address, forwarded to ports
/// in the guest. Nothing else comes in, and nothing goes out.
pub(super) struct Ports {
    /// Port 80 of the VIP, which only the agent announces.
    pub(super) vip: u16,
    /// Port 80 of the machine's own address: the proxy.
    pub(super) proxy: u16,
    /// Prometheus.
    pub(super) prometheus: u16,
}

impl Ports {
    fn free() -> Result<Self> {
        // All at once, or one might be given out twice.
        let free = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0"));
        let [vip, proxy, prometheus] = free.map(|listener| {
            listener
                .and_then(|listener| listener.local_addr())
                .map(|address| address.port())
        });
        let told = "could not find a free port";
        Ok(Self {
            vip: vip.context(told)?,
            proxy: proxy.context(told)?,
            prometheus: prometheus.context(told)?,
        })
    }

    fn network(&self) -> String {
        let forwards = [
            (self.vip, "192.168.56.80:80"),
            (self.proxy, "192.168.56.10:80"),
            (self.prometheus, "192.168.56.10:9090"),
        ]
        .map(|(port, to)| format!(",hostfwd=tcp:127.0.0.1:{port}-{to}"))
        .concat();
        format!("user,id=private,restrict=on,net=192.168.56.0/24,host=192.168.56.1{forwards}")
    }
}

/// What came of it.
pub(super) struct Life {
    pub(super) transcript: String,
    pub(super) console: String,
    pub(super) outside: Outside,
    pub(super) took: Duration,
    pub(super) logs: PathBuf,
}

/// Boots the machine with the image `given`, and waits until it is off.
pub(super) fn live(root: &Root, given: &Path, logs: &Path) -> Result<Life> {
    let [console, steps, journal] =
        ["console.log", "steps.log", "journal.log"].map(|name| logs.join(name));
    for log in [&console, &steps, &journal] {
        fs::write(log, "").with_context(|| format!("could not write {}", log.display()))?;
    }
    let ports = Ports::free()?;
    let drive = |image: &Path, options: &str| {
        format!("file={},if=virtio,format=raw,{options}", image.display())
    };
    let mut qemu = qemu::command();
    qemu.arg("-kernel")
        .arg(&root.vmlinuz)
        .arg("-initrd")
        .arg(&root.initrd)
        .args([
            "-append",
            // Emulated timers are late on a busy machine, which the kernel takes for broken ones.
            "root=/dev/vda rw console=ttyS0 net.ifnames=0 panic=-1 random.trust_cpu=on no_timer_check \
             quiet",
        ])
        // Whatever is written is forgotten with the machine.
        .args(["-drive", &drive(&root.image, "snapshot=on,cache=unsafe")])
        .args(["-drive", &drive(given, "readonly=on")])
        .args(["-netdev", &ports.network()])
        .args(["-device", "virtio-net-pci,netdev=private"])
        .args(qemu::serial_lines(&[&console, &steps, &journal]));
    let mut machine = qemu::Machine::start(&mut qemu)?;
    let mut outside = Outside::new(ports);
    let mut shown = 0;
    let off = machine.wait(LIMIT, |age| {
        let text = qemu::read_log(&steps).unwrap_or_default();
        for step in transcript::begun(&text).skip(shown) {
            println!("    {:>4} s  {step}", age.as_secs());
            shown += 1;
        }
        outside.look(&text);
    })?;
    let transcript = qemu::read_log(&steps)?;
    if !off {
        bail!(
            "the guest did not get to its end in {} minutes; it was at the step `{}`: see {} and {}",
            LIMIT.as_secs() / 60,
            transcript::begun(&transcript).last().unwrap_or("boot"),
            steps.display(),
            console.display()
        );
    }
    Ok(Life {
        transcript,
        console: qemu::read_log(&console)?,
        outside,
        took: machine.age(),
        logs: logs.to_owned(),
    })
}
