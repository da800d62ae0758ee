//! A2A agent cards, version 1.0: what an agent says of itself as JSON, and the registration that this means.
//!
//! A card is kept and served back as it came, but for the blanks between its tokens: fields that are not known here stay,
//! and so do numbers, letter for letter, since a card may be signed. What is read of it only fills in what its
//! registration leaves out; who completes a registration twice gets the same.

mod place;
mod reader;

use convoy_client::proto::{Capability, Port, Protocol, Registration};
use serde_json::Value;

use self::{place::Place, reader::Reader};
use super::{Invalid, Limits, limits::at_most, parse};

/// The field under which errors name what is wrong in a card.
pub const FIELD: &str = "agent_card";
/// Whoever shows a card inside of something else stays within what JSON readers take (128).
const MAX_DEPTH: usize = 64;
const MAX_INTERFACES: usize = 64;

const NAME_LABEL: &str = "a2a.name";
const VERSION_LABEL: &str = "a2a.version";
const PROTOCOL_VERSION_LABEL: &str = "a2a.protocol-version";
const PROVIDER_LABEL: &str = "a2a.provider";

/// What is read of a card.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentCard {
    /// The card itself, without blanks.
    pub text: String,
    pub name: String,
    pub description: String,
    /// The agent's.
    pub version: String,
    pub provider: Option<String>,
    /// The preferred one.
    pub interface: Interface,
    pub skills: Vec<Skill>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub url: String,
    /// `JSONRPC`, `GRPC`, `HTTP+JSON`, or another.
    pub binding: String,
    /// Of A2A.
    pub version: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skill {
    pub id: String,
    pub name: String,
    pub description: String,
    pub tags: Vec<String>,
    /// Media types; the agent's when the skill names none.
    pub input_modes: Vec<String>,
    pub output_modes: Vec<String>,
}

/// Fills in what a registration leaves out and its card says. One without a card stays as it is.
pub fn complete(registration: &mut Registration, limits: &Limits) -> Result<(), Invalid> {
    if registration.agent_card.is_empty() {
        return Ok(());
    }
    let card = AgentCard::parse(&registration.agent_card, limits)?;
    if registration.ports.is_empty() {
        card.place(registration, None)?;
    }
    for (name, value) in card.labels() {
        let value = cut(value, limits.label_value_bytes);
        registration.labels.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    }
    if registration.description.is_empty() {
        registration.description = cut(&card.description, parse::MAX_DESCRIPTION_BYTES).to_owned();
    }
    for skill in &card.skills {
        if registration.capabilities.iter().all(|said| said.name != skill.id) {
            registration.capabilities.push(skill.capability(&card.version));
        }
    }
    registration.agent_card = card.text;
    Ok(())
}

impl AgentCard {
    pub fn parse(text: &str, limits: &Limits) -> Result<Self, Invalid> {
        let value: Value =
            serde_json::from_str(text).map_err(|error| Invalid::new(FIELD, text, format!("JSON: {error}")))?;
        let (text, depth) = without_blanks(text);
        at_most(FIELD, text.len(), limits.agent_card_bytes, "bytes")?;
        at_most(FIELD, depth, MAX_DEPTH, "objects and lists inside each other")?;
        let card = Reader::root(FIELD, &value)?;
        check_unread(&card)?;
        let version = card.text("version")?;
        if version.len() > parse::MAX_CAPABILITY_VERSION_BYTES {
            return Err(Invalid::new(card.field("version"), version, "at most 64 bytes: it is that of each skill"));
        }
        let provider = card.optional_object("provider")?;
        let provider = provider.map(|provider| {
            provider.text("url")?;
            provider.text("organization")
        });
        Ok(Self {
            name: card.text("name")?.to_owned(),
            description: card.text("description")?.to_owned(),
            version: version.to_owned(),
            provider: provider.transpose()?.map(str::to_owned),
            interface: interface(&card)?,
            skills: skills(&card, limits)?,
            text,
        })
    }

    fn labels(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            (NAME_LABEL, Some(self.name.as_str())),
            (VERSION_LABEL, Some(self.version.as_str())),
            (PROTOCOL_VERSION_LABEL, Some(self.interface.version.as_str())),
            (PROVIDER_LABEL, self.provider.as_deref()),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
    }

    /// Gives a registration the port, and the address unless it has one, of the preferred interface. `port` goes before that
    /// of the URL.
    pub fn place(&self, registration: &mut Registration, port: Option<u16>) -> Result<(), Invalid> {
        let field = format!("{FIELD}.supportedInterfaces[0].url");
        let url = &self.interface.url;
        let place = Place::of(url);
        let place = place.as_ref().map_err(|rule| Invalid::new(&field, url, rule.clone()));
        if registration.address.is_empty() {
            let address = place.clone()?.address;
            let rule = "a URL whose host is an IP address, or an `address` beside the card: names are not resolved";
            registration.address = address.ok_or_else(|| Invalid::new(&field, url, rule))?.to_string();
        }
        let (number, tls) = match port {
            Some(number) => (number, false),
            None => {
                let place = place?;
                let rule = "a URL with a port, or a port beside the card";
                (place.port.ok_or_else(|| Invalid::new(&field, url, rule))?, place.tls)
            }
        };
        let protocol = match self.interface.binding.as_str() {
            // What is encrypted passes as it is.
            _ if tls => Protocol::Tcp,
            "JSONRPC" | "HTTP+JSON" => Protocol::Http,
            "GRPC" => Protocol::Grpc,
            _ => Protocol::Tcp,
        };
        registration.ports = vec![Port { name: protocol.to_string(), port: number.into(), protocol: protocol.into() }];
        Ok(())
    }
}

impl Skill {
    fn capability(&self, version: &str) -> Capability {
        let description = format!("{}: {}", self.name, self.description);
        let lists = [("tags", &self.tags), ("input_modes", &self.input_modes), ("output_modes", &self.output_modes)];
        let said = lists.into_iter().filter(|(_, list)| !list.is_empty());
        Capability {
            name: self.id.clone(),
            version: version.to_owned(),
            description: cut(&description, parse::MAX_DESCRIPTION_BYTES).to_owned(),
            attributes: said.map(|(name, list)| (name.to_owned(), list.join(","))).collect(),
        }
    }
}

/// What must be of its kind, and is not read.
fn check_unread(card: &Reader<'_>) -> Result<(), Invalid> {
    for name in ["documentationUrl", "iconUrl"] {
        card.optional_text(name)?;
    }
    let capabilities = card.object("capabilities")?;
    for name in ["streaming", "pushNotifications", "extendedAgentCard"] {
        capabilities.optional_flag(name)?;
    }
    for extension in capabilities.optional_objects("extensions")? {
        extension.text("uri")?;
        extension.optional_flag("required")?;
    }
    card.optional_object("securitySchemes")?;
    card.optional_objects("securityRequirements")?;
    for signature in card.optional_objects("signatures")? {
        signature.text("protected")?;
        signature.text("signature")?;
        signature.optional_object("header")?;
    }
    Ok(())
}

/// The first is the preferred one.
fn interface(card: &Reader<'_>) -> Result<Interface, Invalid> {
    let all = card.objects("supportedInterfaces")?;
    at_most(&card.field("supportedInterfaces"), all.len(), MAX_INTERFACES, "interfaces")?;
    let mut first = None;
    for reader in &all {
        reader.optional_text("tenant")?;
        let text = |name: &str| reader.text(name).map(str::to_owned);
        let interface =
            Interface { url: text("url")?, binding: text("protocolBinding")?, version: text("protocolVersion")? };
        first.get_or_insert(interface);
    }
    first.ok_or_else(|| Invalid::new(card.field("supportedInterfaces"), "[]", "at least one interface"))
}

fn skills(card: &Reader<'_>, limits: &Limits) -> Result<Vec<Skill>, Invalid> {
    let (inputs, outputs) = (card.texts("defaultInputModes")?, card.texts("defaultOutputModes")?);
    let all = card.objects("skills")?;
    at_most(&card.field("skills"), all.len(), limits.capabilities, "skills")?;
    let mut skills: Vec<Skill> = Vec::with_capacity(all.len());
    for reader in &all {
        reader.optional_texts("examples")?;
        reader.optional_objects("securityRequirements")?;
        let id = reader.text("id")?;
        if id.len() > parse::MAX_CAPABILITY_NAME_BYTES {
            return Err(Invalid::new(reader.field("id"), id, "1 to 256 bytes"));
        }
        if skills.iter().any(|other| other.id == id) {
            return Err(Invalid::new(reader.field("id"), id, "unique among the skills"));
        }
        skills.push(Skill {
            id: id.to_owned(),
            name: reader.text("name")?.to_owned(),
            description: reader.text("description")?.to_owned(),
            tags: reader.texts("tags")?,
            input_modes: reader.optional_texts("inputModes")?.unwrap_or_else(|| inputs.clone()),
            output_modes: reader.optional_texts("outputModes")?.unwrap_or_else(|| outputs.clone()),
        });
    }
    Ok(skills)
}

/// The beginning of a text, whole letters of it.
fn cut(text: &str, limit: usize) -> &str {
    let end = (0..=limit.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    &text[..end]
}

/// Valid JSON without the blanks between its tokens, and how deep it goes.
fn without_blanks(json: &str) -> (String, usize) {
    let (mut text, mut depth, mut deepest) = (String::with_capacity(json.len()), 0usize, 0);
    let (mut quoted, mut escaped) = (false, false);
    for letter in json.chars() {
        match letter {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ' ' | '\t' | '\n' | '\r' if !quoted => continue,
            '{' | '[' if !quoted => depth += 1,
            '}' | ']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
        text.push(letter);
    }
    (text, deepest)
}

#[cfg(test)]
mod tests;
