//! `convoy card`: A2A agent cards of those registered.

use std::io::{Read, Write};

use anyhow::Context;
use clap::{Args, Subcommand};
use convoy_client::{
    json::parse_duration,
    proto::{
        AgentCard, GetAgentCardRequest, ListAgentCardsRequest, ListAgentCardsResponse, RegisterRequest, Registration,
    },
};
use serde_json::Value;

use super::{
    names::InstanceName,
    options::{Format, Options},
    output::{self, Table},
    register, tables,
};

const EXAMPLES: &str = "Examples:
  convoy card register readers/reader-1 agent-card.json --address 10.0.0.7
  convoy card list";

/// Register agents by their A2A cards, and read the cards of those that take requests
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CardCommand {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Clone, Subcommand)]
enum Verb {
    /// Register an instance by its card once, and print its lease
    ///
    /// Its skills become capabilities, its first interface the address and the port. Nobody heartbeats for it: it goes when
    /// its lease ends, unless you renew that (POST /v1/leases/ID/heartbeat).
    #[command(after_help = "Examples:
  convoy card register readers/reader-1 agent-card.json --ttl 10m
  convoy card register readers/reader-1 - --address 10.0.0.7")]
    Register(RegisterCard),
    /// Print the card of an agent that takes requests
    #[command(after_help = "Examples:\n  convoy card get readers/reader-1\n  convoy card get readers/reader-1 -o yaml")]
    Get {
        /// The instance
        #[arg(value_name = "SERVICE/ID")]
        instance: InstanceName,
    },
    /// The cards of those that take requests
    #[command(after_help = "Examples:\n  convoy card list\n  convoy card list readers -o json")]
    List {
        /// Only of this service
        #[arg(default_value = "", hide_default_value = true)]
        service: String,
    },
}

#[derive(Debug, Clone, Args)]
struct RegisterCard {
    /// The instance
    #[arg(value_name = "SERVICE/ID")]
    instance: InstanceName,
    /// The card, as JSON; `-` is standard input
    file: String,
    /// Its IP address, if the host of the card's first interface is a name
    #[arg(long, value_name = "IP")]
    address: Option<std::net::IpAddr>,
    /// How long it stays registered without a heartbeat; 30s when not set
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    ttl: Option<std::time::Duration>,
    /// A number that only grows from one start to the next; the instance's present one when not set
    #[arg(long, value_name = "NUMBER")]
    incarnation: Option<u64>,
}

pub(super) async fn run(command: CardCommand, options: &Options, out: &mut dyn Write) -> anyhow::Result<()> {
    match command.verb {
        Verb::Register(command) => put(command, options, out).await,
        Verb::Get { instance: InstanceName { service, id } } => {
            let request = GetAgentCardRequest { namespace: options.namespace(), service, id };
            let answer = options.client()?.get_agent_card(request).await?;
            match options.output {
                Format::Table | Format::Wide | Format::Json => {
                    let card: Value = serde_json::from_str(&answer.card)?;
                    Ok(writeln!(out, "{}", serde_json::to_string_pretty(&card)?)?)
                }
                _ => {
                    let card: Value = serde_json::from_str(&answer.card)?;
                    output::print(out, options, &card, &[name(&answer)], "", |_| Table::default())
                }
            }
        }
        Verb::List { service } => {
            let answer = list(service, options).await?;
            let names: Vec<String> = answer.cards.iter().map(name).collect();
            let none = format!("No agent {} has a card and takes requests.", options.whereabouts());
            output::print(out, options, &answer, &names, &none, |_| table(&answer.cards))
        }
    }
}

async fn put(command: RegisterCard, options: &Options, out: &mut dyn Write) -> anyhow::Result<()> {
    let agent_card = read(&command.file).with_context(|| format!("{} cannot be read", command.file))?;
    let InstanceName { service, id } = command.instance;
    let address = command.address.map(|address| address.to_string()).unwrap_or_default();
    let registration =
        Registration { namespace: options.namespace(), service, id, address, agent_card, ..Default::default() };
    let request = RegisterRequest {
        ttl: command.ttl.map(convoy_client::duration),
        incarnation: command.incarnation,
        instances: vec![registration],
        ..Default::default()
    };
    let answer = options.client()?.register(request).await?;
    let names: Vec<String> = answer.instances.iter().map(tables::instance_name).collect();
    output::print(out, options, &answer, &names, "", |_| register::table(&answer))
}

fn read(file: &str) -> std::io::Result<String> {
    let mut text = String::new();
    match file {
        "-" => std::io::stdin().read_to_string(&mut text)?,
        file => std::fs::File::open(file)?.read_to_string(&mut text)?,
    };
    Ok(text)
}

/// All pages as one.
async fn list(service: String, options: &Options) -> anyhow::Result<ListAgentCardsResponse> {
    let client = options.client()?;
    let mut request = ListAgentCardsRequest { namespace: options.namespaces(), service, ..Default::default() };
    let mut all = ListAgentCardsResponse::default();
    loop {
        let page = client.list_agent_cards(request.clone()).await?;
        all.cards.extend(page.cards);
        all.revision = page.revision;
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        request.page_token = page.next_page_token;
    }
}

fn name(card: &AgentCard) -> String {
    format!("{}/{}", card.service, card.id)
}

fn table(cards: &[AgentCard]) -> Table {
    let row = |of: &AgentCard| {
        let card: Value = serde_json::from_str(&of.card).unwrap_or_default();
        let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
        let ids = card["skills"].as_array().into_iter().flatten().map(|skill| text(&skill["id"]));
        let skills = ids.collect::<Vec<_>>().join(",");
        let health = of.verdict().to_string();
        vec![of.namespace.clone(), name(of), text(&card["name"]), text(&card["version"]), health, skills]
    };
    let header = vec!["NAMESPACE", "INSTANCE", "AGENT", "VERSION", "HEALTH", "SKILLS"];
    Table { header, rows: cards.iter().map(row).collect() }
}
