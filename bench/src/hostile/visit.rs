//! The crowd in a process of its own: both ends of eleven thousand connections would be more
//! descriptors than many hosts allow one process, and the memory that is measured is the broker's
//! alone. The two speak in lines: an order, and a number as the answer.

use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use super::crowd::Crowd;
use crate::os;

/// What the command line calls the other process.
pub const COMMAND: &str = "hostile-crowd";

/// Descriptors beside the connections.
const SPARE_FILES: u64 = 200;

/// The crowd, as the measuring process sees it.
pub struct Visit {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Visit {
    pub fn start(address: SocketAddr) -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([COMMAND, &address.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (Some(orders), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            unreachable!("both are piped");
        };
        Ok(Self { child, orders, answers: BufReader::new(answers) })
    }

    fn ask(&mut self, order: &str) -> io::Result<usize> {
        writeln!(self.orders, "{order}")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        line.trim().parse().map_err(|_| io::Error::other(format!("the crowd at {order:?}: {line}")))
    }

    pub fn add_idle(&mut self, count: usize) -> io::Result<()> {
        self.ask(&format!("idle {count}")).map(drop)
    }

    pub fn add_slow(&mut self, count: usize) -> io::Result<()> {
        self.ask(&format!("slow {count}")).map(drop)
    }

    /// How many idle ones have been closed.
    pub fn lost_idle(&mut self) -> io::Result<usize> {
        self.ask("lost 0")
    }

    /// How many slow ones are still there when all are gone or the time is up.
    pub fn wait_for_slow(&mut self, time_max: Duration) -> io::Result<usize> {
        self.ask(&format!("wait {}", time_max.as_millis()))
    }

    /// The crowd hangs up.
    pub fn leave(mut self) -> io::Result<()> {
        self.ask("leave 0")?;
        self.child.wait().map(drop)
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        // Does nothing to one that has left.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// What the other process does. It ends with its orders.
pub fn serve(address: SocketAddr) -> io::Result<()> {
    let mut crowd = Crowd::new(address);
    for line in io::stdin().lines() {
        let line = line?;
        let (order, count) = line.split_once(' ').unwrap_or((&line, "0"));
        let count: usize = count.parse().map_err(io::Error::other)?;
        let answer = match order {
            "idle" => room_for(count).and_then(|()| crowd.add_idle(count)).map(|()| 0),
            "slow" => room_for(count).and_then(|()| crowd.add_slow(count)).map(|()| 0),
            "lost" => Ok(crowd.lost_idle()),
            "wait" => crowd.wait_for_slow(Duration::from_millis(count as u64)),
            "leave" => {
                crowd.leave();
                println!("0");
                return Ok(());
            }
            other => Err(io::Error::other(format!("unknown order {other}"))),
        };
        match answer {
            Ok(count) => println!("{count}"),
            Err(error) => println!("{error}"),
        }
    }
    Ok(())
}

fn room_for(connections: usize) -> io::Result<()> {
    let open = std::fs::read_dir("/proc/self/fd")?.count() as u64;
    os::demand_open_files(open + connections as u64 + SPARE_FILES)
}
