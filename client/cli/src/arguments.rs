//! What can be asked on the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use corelog::{Compression, Durability};

use crate::place::Place;
use crate::units::{Age, Bytes, Text, header, objective, partition, span};

/// Topics and records of a Corelog broker, or of a cluster of them.
#[derive(Parser, Debug)]
#[command(name = "corelog", version, after_long_help = crate::failure::EXIT_CODES)]
pub struct Arguments {
    /// Where a broker listens; of a cluster any, or several with commas between them.
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORT,...",
        env = "CORELOG_BROKER",
        default_value = "127.0.0.1:7420"
    )]
    pub broker: String,
    /// Print JSON for programs instead of text for people.
    #[arg(long, global = true)]
    pub json: bool,
    /// How long the broker may take for one answer: 500ms, 10s, 1m.
    #[arg(long, global = true, value_name = "TIME", default_value = "10s", value_parser = span)]
    pub timeout: Duration,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Make, list, describe, alter and delete topics.
    Topic {
        #[command(subcommand)]
        command: TopicCommand,
    },
    Produce(Produce),
    Consume(Consume),
    Status(Status),
    /// Show the brokers and lanes of a cluster, and change who leads what, without loss.
    Cluster {
        #[command(subcommand)]
        command: ClusterCommand,
    },
    /// Print a script that completes these commands in a shell.
    ///
    /// For bash: corelog completion bash > ~/.local/share/bash-completion/completions/corelog
    Completion {
        shell: Shell,
    },
}

#[derive(Subcommand, Debug)]
pub enum TopicCommand {
    /// Make a topic.
    Create {
        /// 1 to 249 letters, digits, dots, hyphens and underscores.
        topic: String,
        /// How many partitions it has. They may become more later, never fewer.
        #[arg(long, default_value_t = 1, value_name = "COUNT")]
        partitions: u32,
        #[command(flatten)]
        retention: Retention,
        /// Succeed if there is a topic of this name already, whatever its settings.
        #[arg(long)]
        if_missing: bool,
    },
    /// List all topics.
    List,
    /// Show a topic's settings, and where its partitions begin, end and live.
    Describe {
        /// Its name.
        topic: String,
    },
    /// Change a topic while it is in use.
    Alter {
        /// Its name.
        topic: String,
        /// How many partitions it has from now on. Never fewer; a key may go to another one then.
        #[arg(long, value_name = "COUNT")]
        partitions: Option<u32>,
        #[command(flatten)]
        retention: Retention,
    },
    /// Delete a topic and its records.
    Delete {
        /// Its name.
        topic: String,
        /// Do not ask whether this is meant.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Subcommand, Debug)]
pub enum ClusterCommand {
    /// Show brokers and lanes: who is there, who leads, how far the others are behind.
    Status,
    /// Let another broker lead a lane, from now on whenever it can. Nothing that was acknowledged is lost.
    Transfer {
        #[command(flatten)]
        which: Which,
        /// The broker, which has a replica of the lane.
        #[arg(long, value_name = "BROKER")]
        to: u32,
        #[command(flatten)]
        how: How,
    },
    /// Put a lane on other brokers: who is new copies everything, who is not named any more is parted with. The leader must
    /// stay, and a quorum of the new ones be there already: so change one at a time.
    Move {
        #[command(flatten)]
        which: Which,
        /// All that shall have a replica, as many as now, the preferred leader first.
        #[arg(long, value_name = "BROKERS", value_delimiter = ',', required = true)]
        replicas: Vec<u32>,
        #[command(flatten)]
        how: How,
    },
    /// Let a broker lead nothing until it is undrained: before it is stopped, say. Nothing that was acknowledged is lost.
    Drain {
        /// The broker.
        #[arg(value_name = "BROKER")]
        number: u32,
        #[command(flatten)]
        how: How,
    },
    /// Remove a broker for good, whether it is alive or not: its lanes are put on others, one after the other, then the
    /// cluster forgets it. Nothing that was acknowledged is lost. Interrupted, it goes on when it is called again.
    ///
    /// A broker whose disk is lost is replaced so: start one with a number that none had before and `join = true`, then
    /// remove the old one onto the new.
    Remove {
        /// The broker.
        #[arg(value_name = "BROKER")]
        number: u32,
        /// Put its lanes on these only. Without, each goes where the fewest are, apart by racks.
        #[arg(long, value_name = "BROKERS", value_delimiter = ',')]
        onto: Vec<u32>,
        #[command(flatten)]
        how: PlanHow,
    },
    /// Spread lanes and who leads them over the brokers that are there, as after one was added. Nothing that was
    /// acknowledged is lost. Interrupted, it goes on when it is called again.
    Balance {
        #[command(flatten)]
        how: PlanHow,
    },
    /// Let a drained broker lead again. It gets back the lanes that prefer it once it has kept up for 5 s.
    Undrain {
        /// The broker.
        #[arg(value_name = "BROKER")]
        number: u32,
        #[command(flatten)]
        how: How,
    },
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct Which {
    /// The lane.
    #[arg(long, value_name = "NUMBER")]
    pub lane: Option<u32>,
    /// The lane of this partition, with all others that are in it.
    #[arg(long, value_name = "TOPIC/NUMBER", value_parser = partition)]
    pub partition: Option<(String, u32)>,
}

/// How a planned change is made.
#[derive(Args, Debug)]
pub struct How {
    /// Say what would change, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Return as soon as it has begun.
    #[arg(long, conflicts_with = "dry_run")]
    pub no_wait: bool,
    /// How long it may take until it is done.
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = span)]
    pub patience: Duration,
}

/// How a plan of several changes is made.
#[derive(Args, Debug)]
pub struct PlanHow {
    /// Say which steps there would be, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// How long each step may take: the copy of a lane, say.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = span)]
    pub patience: Duration,
}

#[derive(Args, Debug)]
pub struct Retention {
    /// How long records are kept at least: 12h, 7d, or "forever".
    #[arg(long, value_name = "TIME")]
    pub retention: Option<Age>,
    /// How much of each partition is kept at least: 500MiB, 10GiB, or "unlimited".
    #[arg(long, value_name = "BYTES")]
    pub retention_bytes: Option<Bytes>,
}

/// Send the lines of stdin or of a file as records.
#[derive(Args, Debug)]
pub struct Produce {
    /// Where to send them. It must be there: `corelog topic create` makes it.
    pub topic: String,
    /// Read this file instead of stdin.
    #[arg(long, value_name = "PATH")]
    pub file: Option<PathBuf>,
    /// What is before the first of these in a line is the record's key. "\t" is a tab.
    #[arg(long, value_name = "TEXT")]
    pub key_separator: Option<Text>,
    /// A header of every record. May be given several times.
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    pub headers: Vec<(String, String)>,
    /// Send to this partition. Otherwise the key decides, as in Kafka, or the client without a key.
    #[arg(long, value_name = "NUMBER")]
    pub partition: Option<u32>,
    /// How safe a record must be to count as stored: none, leader_memory, leader_durable,
    /// quorum_memory or quorum_durable.
    #[arg(long, default_value_t = Durability::QuorumDurable, value_name = "LEVEL")]
    pub durability: Durability,
    /// How batches of records are compressed: none, lz4 or zstd. Consumers need not be told.
    #[arg(long, default_value_t = Compression::None, value_name = "CODEC")]
    pub compression: Compression,
    /// Batch as much as 99 of 100 records can bear and still be stored within this time: 5ms. A line on
    /// stderr says if that is out of reach.
    #[arg(long, value_name = "TIME", value_parser = objective)]
    pub objective: Option<Duration>,
    /// Print where each record went: line, partition, offset.
    #[arg(long)]
    pub acks: bool,
}

/// Print the records of a topic.
///
/// Without --follow it ends at what is there now. Records of one partition come in their order.
#[derive(Args, Debug)]
pub struct Consume {
    /// Which one.
    pub topic: String,
    /// Only this partition. May be given several times.
    #[arg(long = "partition", value_name = "NUMBER")]
    pub partitions: Vec<u32>,
    /// Where to begin: beginning, end, offset:42, time:2026-01-31T12:00:00Z, time:-10m (ago).
    #[arg(long, default_value = "beginning", value_name = "PLACE", allow_hyphen_values = true)]
    pub from: Place,
    /// Where to stop, itself not printed: end (as of now), or a place as for --from.
    #[arg(long, value_name = "PLACE", allow_hyphen_values = true)]
    pub until: Option<Place>,
    /// Stop after this many records.
    #[arg(long, value_name = "COUNT")]
    pub count: Option<u64>,
    /// Wait for what comes, until --until or --count is reached or Ctrl-C is pressed.
    #[arg(long, short)]
    pub follow: bool,
    /// The rack that you are in, as brokers name theirs: records are read from the copies there, so that they do not
    /// travel between racks. From their leaders, if there is no copy there.
    #[arg(long, value_name = "NAME")]
    pub rack: Option<String>,
    /// plain: the values, a line each. json: one object a line. --json means json.
    #[arg(long, value_enum, default_value_t = Format::Plain)]
    pub format: Format,
    /// With --format plain, print these before the value, separated by tabs.
    #[arg(long, value_delimiter = ',', value_name = "FIELDS")]
    pub with: Vec<Field>,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    Plain,
    Json,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Field {
    Partition,
    Offset,
    /// As the producer set it.
    Timestamp,
    Key,
    Headers,
}

/// Show how a broker is: shards, lanes, partitions, memory, and commit times of the last minutes.
#[derive(Args, Debug)]
pub struct Status {
    /// Show the counters whose names begin so, or all of them, instead of the summary.
    #[arg(long, value_name = "PREFIX", num_args = 0..=1, default_missing_value = "")]
    pub counters: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_commands_contradict_nothing() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_time_ago_is_no_option() {
        let line = ["corelog", "consume", "t", "--from", "time:-10m", "--with", "key,offset"];
        let Command::Consume(consume) = Arguments::try_parse_from(line).unwrap().command else {
            panic!("another command");
        };
        assert!(matches!(consume.from, Place::Time(_)));
        assert_eq!(consume.with, [Field::Key, Field::Offset]);
    }
}
