//! What the screen shows and what keys do to it. Pure: looks, keys and the time come in.

use std::time::Duration;

use super::{
    look::{Look, Wanted},
    order::Order,
    picture::Picture,
    press::Press,
    rate::Course,
    sheet::{self, Pane, Sheet},
};

/// Rows that a page key goes over.
const PAGE: isize = 10;

/// What is to be done outside after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Only the screen changes.
    Nothing,
    /// Another service is selected, so the next look should come soon.
    Ask,
    /// The shell is wanted back for a while.
    Suspend,
    /// The end.
    Quit,
}

/// How one pane is looked at.
#[derive(Clone, Debug, Default)]
struct View {
    /// Identity of the selected row.
    selected: Option<String>,
    /// Where it was seen last: whoever is there follows when it is gone.
    at: usize,
    order: Order,
    filter: String,
}

/// Why the picture is not of now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stale {
    /// Since the last look.
    pub(super) age: Duration,
    /// A sentence; `None`: the agent has just not answered yet.
    pub(super) why: Option<String>,
}

/// Courses of the node's rates.
#[derive(Clone, Debug, Default)]
pub(super) struct Courses {
    pub(super) packets: Course,
    pub(super) new_flows: Course,
    pub(super) drops: Course,
}

/// The state of the screen.
#[derive(Debug)]
pub(super) struct Model {
    interval: Duration,
    last: Option<(Look, Duration)>,
    picture: Picture,
    pub(super) courses: Courses,
    pane: Pane,
    views: [View; Pane::ALL.len()],
    trouble: Option<String>,
    /// The filter of the pane is being typed.
    pub(super) typing: bool,
    pub(super) paused: bool,
    pub(super) help: bool,
    pub(super) detail: bool,
}

impl Model {
    /// A screen that is looked at every `interval`, with a service selected or the first one.
    pub(super) fn new(interval: Duration, service: Option<String>, order: Order) -> Self {
        let mut views: [View; Pane::ALL.len()] = Default::default();
        for pane in Pane::ALL {
            let key = pane.keys().first().copied().unwrap_or_default();
            views[pane.index()].order.key = key;
        }
        views[Pane::Services.index()].selected = service;
        views[Pane::Services.index()].order = order;
        Self {
            interval,
            last: None,
            picture: Picture::default(),
            courses: Courses::default(),
            pane: Pane::default(),
            views,
            trouble: None,
            typing: false,
            paused: false,
            help: false,
            detail: false,
        }
    }

    /// A look has come, taken at this time.
    pub(super) fn took(&mut self, look: Look, at: Duration) {
        let before = self.last.as_ref();
        let elapsed = before.map_or(Duration::ZERO, |(_, then)| at.saturating_sub(*then));
        self.picture = Picture::new(before.map(|(look, _)| look), &look, elapsed);
        let node = &self.picture.node;
        self.courses.packets.push(node.packets_per_second);
        self.courses.new_flows.push(node.new_flows_per_second);
        self.courses.drops.push(node.drops_per_second);
        self.last = Some((look, at));
        self.trouble = None;
        if self.views[Pane::Services.index()].selected.is_none() {
            self.select(Pane::Services, 0);
        }
    }

    /// A look could not be taken.
    pub(super) fn failed(&mut self, why: String) {
        self.trouble = Some(why);
    }

    /// What is to be asked for.
    pub(super) fn wanted(&self) -> Wanted {
        Wanted {
            backends_of: self.selected(Pane::Services),
        }
    }

    pub(super) fn picture(&self) -> &Picture {
        &self.picture
    }

    pub(super) fn pane(&self) -> Pane {
        self.pane
    }

    pub(super) fn order(&self, pane: Pane) -> Order {
        self.views[pane.index()].order
    }

    pub(super) fn filter(&self, pane: Pane) -> &str {
        &self.views[pane.index()].filter
    }

    /// The rows of a pane.
    pub(super) fn sheet(&self, pane: Pane) -> Sheet {
        let view = &self.views[pane.index()];
        let mut sheet = sheet::sheet(&self.picture, pane, view.order, &view.filter);
        // Those of the service that was selected before.
        if pane == Pane::Backends && !self.backends_are_known() {
            sheet.rows.clear();
            sheet.hidden = 0;
        }
        sheet
    }

    /// Whether the backends that are there are the selected service's.
    pub(super) fn backends_are_known(&self) -> bool {
        self.picture.backends_of == self.selected(Pane::Services)
    }

    /// Which of the sheet's rows is selected.
    pub(super) fn position(&self, pane: Pane, sheet: &Sheet) -> Option<usize> {
        let view = &self.views[pane.index()];
        let last = sheet.rows.len().checked_sub(1)?;
        let same = |id: &String| sheet.rows.iter().position(|row| row.id == *id);
        Some(
            view.selected
                .as_ref()
                .and_then(same)
                .unwrap_or(view.at.min(last)),
        )
    }

    /// Identity of the selected row.
    pub(super) fn selected(&self, pane: Pane) -> Option<String> {
        // Backends depend on the selected service: not to be asked here, or this would not end.
        let view = &self.views[pane.index()];
        let sheet = sheet::sheet(&self.picture, pane, view.order, &view.filter);
        match self.position(pane, &sheet) {
            Some(position) => Some(sheet.rows[position].id.clone()),
            // Before the first look, what was asked for on the command line.
            None if self.last.is_none() => view.selected.clone(),
            None => None,
        }
    }

    /// Whether the picture is older than it should be.
    pub(super) fn stale(&self, now: Duration) -> Option<Stale> {
        let (_, at) = self.last.as_ref()?;
        let age = now.saturating_sub(*at);
        let late = self.interval * 3 + Duration::from_secs(2);
        match &self.trouble {
            Some(why) => Some(Stale {
                age,
                why: Some(why.clone()),
            }),
            None if self.paused || age < late => None,
            None => Some(Stale { age, why: None }),
        }
    }

    /// A key was pressed.
    pub(super) fn press(&mut self, press: Press) -> Effect {
        let before = self.selected(Pane::Services);
        let effect = if self.typing {
            self.typed(press)
        } else if self.help || self.detail {
            self.over(press)
        } else {
            self.command(press)
        };
        if effect == Effect::Nothing && self.selected(Pane::Services) != before {
            return Effect::Ask;
        }
        effect
    }

    fn typed(&mut self, press: Press) -> Effect {
        let filter = &mut self.views[self.pane.index()].filter;
        match press {
            Press::Character(c) => filter.push(c),
            Press::Backspace => drop(filter.pop()),
            Press::Enter => self.typing = false,
            Press::Escape => {
                filter.clear();
                self.typing = false;
            }
            Press::Interrupt => return Effect::Quit,
            Press::Suspend => return Effect::Suspend,
            _ => {}
        }
        Effect::Nothing
    }

    /// What lies over the panes goes by any key that means nothing there.
    fn over(&mut self, press: Press) -> Effect {
        match press {
            Press::Interrupt => return Effect::Quit,
            Press::Suspend => return Effect::Suspend,
            Press::Up | Press::Down if self.detail => return self.command(press),
            Press::Character('j' | 'k') if self.detail => return self.command(press),
            _ => {}
        }
        self.help = false;
        self.detail = false;
        Effect::Nothing
    }

    fn command(&mut self, press: Press) -> Effect {
        match press {
            Press::Interrupt | Press::Character('q') => return Effect::Quit,
            Press::Suspend => return Effect::Suspend,
            Press::Up | Press::Character('k') => self.step(-1),
            Press::Down | Press::Character('j') => self.step(1),
            Press::PageUp => self.step(-PAGE),
            Press::PageDown => self.step(PAGE),
            Press::Home | Press::Character('g') => self.step(isize::MIN),
            Press::End | Press::Character('G') => self.step(isize::MAX),
            Press::Tab => self.turn(1),
            Press::BackTab => self.turn(Pane::ALL.len() - 1),
            Press::Character('s') => self.sort(),
            Press::Character('r') => {
                let order = &mut self.views[self.pane.index()].order;
                order.reversed = !order.reversed;
            }
            Press::Character('/') => self.typing = true,
            Press::Escape => self.views[self.pane.index()].filter.clear(),
            Press::Enter => self.detail = self.selected(self.pane).is_some(),
            Press::Character('p' | ' ') => {
                self.paused = !self.paused;
                // What was missed meanwhile is asked for at once.
                return Effect::Ask;
            }
            Press::Character('?' | 'h') => self.help = true,
            Press::Character(_) | Press::Backspace => {}
        }
        Effect::Nothing
    }

    fn step(&mut self, by: isize) {
        let sheet = self.sheet(self.pane);
        if let Some(position) = self.position(self.pane, &sheet) {
            self.select(self.pane, position.saturating_add_signed(by));
        }
    }

    /// Selects a row by its place, or the last one.
    fn select(&mut self, pane: Pane, position: usize) {
        let sheet = self.sheet(pane);
        let position = position.min(sheet.rows.len().saturating_sub(1));
        let view = &mut self.views[pane.index()];
        view.at = position;
        view.selected = sheet.rows.get(position).map(|row| row.id.clone());
    }

    fn turn(&mut self, by: usize) {
        self.pane = Pane::ALL[(self.pane.index() + by) % Pane::ALL.len()];
    }

    /// The next column.
    fn sort(&mut self) {
        let keys = self.pane.keys();
        let order = &mut self.views[self.pane.index()].order;
        let place = keys.iter().position(|key| *key == order.key);
        if let Some(place) = place {
            *order = Order {
                key: keys[(place + 1) % keys.len()],
                reversed: false,
            };
        }
    }
}

#[cfg(test)]
mod tests;
