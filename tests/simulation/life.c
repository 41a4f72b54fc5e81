/*
 * Most lives must lose nothing and double nothing, whatever happens, and end with everything
 * published: processes are killed, stopped, paused, and come back when another has taken their
 * disk; brokers, coordinator, partitions and rights go away; requests are late or repeated; other
 * clients' transactions are in the way. In some lives Kafka loses what it committed, or the volume
 * is rolled back or cloned: then what cannot be kept may be missing, but a contradiction between
 * store and Kafka must halt the route.
 */
#include "life.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "ingest/v1/events.pb-c.h"
#include "rdkafka.h"

#define KEYS 5

static config settings = {.kafka = {.brokers = "simulated", .positions_topic = "positions"},
                          .route_count = 1,
                          .trial = true}; /* no topics to be made */
static catalogue *operations;

static life it;

/* ---- hosts ------------------------------------------------------------------------------------
 */

static void on_position(void *argument, uint32_t route, uint64_t sequence) {
    uint64_t *told = argument;
    (void)route;
    if (process_current()->killed) return;
    if (sequence <= *told) world_violate("the position goes back to %llu", LLU(sequence));
    *told = sequence;
    trace("settled up to %llu", LLU(sequence));
}

static void on_dead(void *argument, uint32_t route, uint64_t sequence, const char *reason) {
    const uint64_t *told = argument;
    (void)route, (void)reason;
    if (process_current()->killed) return;
    if (sequence <= *told)
        world_violate("%llu is set aside after the position passed it", LLU(sequence));
}

static void start(host *on, const char *name) {
    char numbered[32];
    failure why;
    snprintf(numbered, sizeof numbered, "%s%u", name, ++it.processes);
    trace("%s starts", numbered);
    on->process = process_new(numbered);
    on->store = volume_open(on->disk, on->process);
    const publisher_options options = {.store = on->store,
                                       .config = &settings,
                                       .settings = &settings.routes[0],
                                       .catalogue = operations,
                                       .on_position = on_position,
                                       .on_dead = on_dead,
                                       .arg = world_hold(sizeof(uint64_t))};
    if (publisher_start(&options, &on->publisher, &why)) world_violate("start: %s", why.reason);
}

static void end(host *on, int64_t grace_ms) {
    publisher_status status;
    publisher_stop(on->publisher);
    publisher_status_get(on->publisher, &status);
    it.figures->transactions += status.transactions;
    publisher_join(on->publisher, grace_ms);
    volume_close(on->store);
    on->publisher = NULL;
    on->store = NULL;
}

static void kill_host(host *on) {
    if (!on->publisher) return;
    it.figures->kills++;
    process_kill(on->process);
    end(on, 0);
}

static void stop_host(host *on) {
    if (!on->publisher) return;
    trace("%s is asked to stop", on->process->name);
    end(on, between(10, 20000));
}

bool host_is_halted(host *on, publisher_status *status) {
    memset(status, 0, sizeof *status);
    if (!on->publisher) return false;
    publisher_status_get(on->publisher, status);
    return status->state == PUBLISHER_HALTED;
}

static host *main_host(void) { return &it.hosts[0]; }

/* ---- workload ----------------------------------------------------------------------------------
 */

static bytes body_of(const event *of) {
    Ingest__V1__Operation parts[4];
    Ingest__V1__Operation *list[4];
    Ingest__V1__Transaction transaction = INGEST__V1__TRANSACTION__INIT;
    Ingest__V1__Event whole = INGEST__V1__EVENT__INIT;
    for (unsigned i = 0; i < of->parts; i++) {
        parts[i] = (Ingest__V1__Operation)INGEST__V1__OPERATION__INIT;
        parts[i].name = i % 2 ? "elsewhere" : "here";
        list[i] = &parts[i];
    }
    transaction.name = "group";
    transaction.n_operations = of->parts;
    transaction.operations = list;
    whole.id = (char *)(uintptr_t)of->id;
    whole.source = "life";
    whole.key = (char *)(uintptr_t)of->key;
    whole.body_case = INGEST__V1__EVENT__BODY_TRANSACTION;
    whole.transaction = &transaction;
    uint8_t *body = world_hold(ingest__v1__event__get_packed_size(&whole));
    return bytes_of(body, ingest__v1__event__pack(&whole, body));
}

static void make_events(void) {
    unsigned poison_in_thousand = chance(500) ? 0 : (unsigned)between(5, 60);
    it.event_count = (size_t)between(10, LIFE_EVENTS);
    for (size_t i = 0; i < it.event_count; i++) {
        event *each = &it.events[i];
        snprintf(each->id, sizeof each->id, "%c%zu", chance(poison_in_thousand) ? 'p' : 'e', i);
        snprintf(each->key, sizeof each->key, "k%llu", LLU(draw(KEYS)));
        each->parts = chance(300) ? (unsigned)between(2, 4) : 1;
        each->body = body_of(each);
    }
}

static void on_acknowledged(event_store *store, event *which) {
    (void)store;
    which->acknowledged = true;
}

/* An event belongs to one host's clients; they send it again until it is acknowledged, and now and
 * then once more. */
static void submit(host *on, bool fresh) {
    event *list[8];
    size_t count = 0, wanted = (size_t)between(1, 8);
    for (size_t i = 0; i < it.event_count && count < wanted; i++) {
        event *each = &it.events[i];
        bool sent = i < it.submitted;
        if (sent ? it.home[i] != on || (each->acknowledged && (it.calm || !chance(5))) : !fresh)
            continue;
        if (!sent) {
            it.home[i] = on;
            it.submitted = i + 1;
        }
        list[count++] = each;
    }
    if (count && on->store) volume_append(on->store, list, count, on_acknowledged);
}

static void workload(void *argument) {
    (void)argument;
    host *on = &it.hosts[draw(it.host_count)];
    if (on->store) submit(on, !it.calm && chance(700));
    later(it.calm ? between(MS, SECOND) : between(MS, it.pace), NULL, workload, NULL);
}

/* ---- faults ------------------------------------------------------------------------------------
 */

static partition *any_partition(void) {
    partition *found = NULL;
    while (!(found = cluster_partition(draw(PARTITIONS_MAX)))) {
    }
    return found;
}

static partition *positions_of(const volume *disk) {
    int32_t number = disk->anchor.positions_partition;
    return cluster_find("positions", number < 0 ? 0 : number);
}

static void take_away(int64_t *until, const char *what, int64_t longest) {
    int64_t duration = chance(700) ? between(10 * MS, 2 * SECOND) : between(SECOND, longest);
    trace("%s is away for %lld ms", what, (long long)(duration / MS));
    *until = world_now() + duration;
}

static void move_leader(void) {
    partition *of = chance(500) ? positions_of(main_host()->disk) : any_partition();
    cluster_move_leader(of, between(100 * MS, 30 * SECOND));
    if (chance(500)) take_away(&of->away_until, "its new leader", 10 * SECOND);
}

static void deny_partition(void) {
    partition *denied = any_partition();
    if (strcmp(denied->topic, "positions") == 0) return;
    take_away(&denied->denied_until, "the right to a topic", 60 * SECOND);
}

/* The process sleeps, its disk goes to another; then it wakes up. */
static void make_zombie(void) {
    host *on = main_host();
    if (!on->publisher || it.zombie.publisher || it.kind == KIND_LOST) return;
    process_pause(on->process, between(100 * MS, 120 * SECOND));
    trace("%s loses its disk, and is a zombie when it wakes", on->process->name);
    volume_detach(on->store);
    it.zombie = *on;
    start(on, "main");
}

static void end_zombie(void) { kill_host(&it.zombie); }

static void restart(bool gently) {
    host *on = main_host();
    if (gently)
        stop_host(on);
    else
        kill_host(on);
    if (chance(500)) world_run_until(world_now() + between(MS, 5 * SECOND));
    if (!on->publisher) start(on, "main");
}

static void nap(void) {
    host *on = main_host();
    if (on->publisher)
        process_pause(on->process,
                      chance(800) ? between(10 * MS, 3 * SECOND) : between(SECOND, 150 * SECOND));
}

static void one_fault(void) {
    it.figures->faults++;
    switch (draw(13)) {
    case 0:
        take_away(&cluster_away_until, "Kafka", 90 * SECOND);
        break;
    case 1:
        take_away(&coordinator_away_until, "the coordinator", 40 * SECOND);
        break;
    case 2:
        take_away(&any_partition()->away_until, "a partition", 60 * SECOND);
        break;
    case 3:
        deny_partition();
        break;
    case 4:
        cluster_neighbour(positions_of(main_host()->disk), between(10 * MS, 30 * SECOND));
        break;
    case 5:
        cluster_compact(positions_of(main_host()->disk));
        break;
    case 6:
        world_jump_wall(between(-3600, 3600) * SECOND);
        break;
    case 7:
        nap();
        break;
    case 8:
        if (it.zombie.publisher)
            end_zombie();
        else if (chance(500))
            make_zombie();
        break;
    case 9:
        move_leader();
        break;
    case 10:
        restart(true);
        break;
    default:
        restart(false);
    }
}

/* ---- what the volume and Kafka cannot take back
 * -------------------------------------------------- */

/* One that had just read its position cannot know; one that starts afterwards must. */
static void lose_commits(void) {
    unsigned which = (unsigned)draw(3);
    bool down = chance(700);
    if (down) kill_host(main_host());
    for (size_t i = 0; cluster_partition(i); i++) {
        partition *from = cluster_partition(i);
        bool positions = strcmp(from->topic, "positions") == 0;
        if (which == (positions ? 1 : 0) || from->end == 0) continue;
        int64_t kept = between(from->end > 40 ? from->end - 40 : 0, from->end);
        check_note_loss(&it, from, kept);
        cluster_lose(from, kept);
    }
    if (!down) return;
    check_expect_halt(&it);
    start(main_host(), "main");
}

static void roll_back(void) {
    host *on = main_host();
    trace("the volume is rolled back from %llu to %llu", LLU(on->disk->last),
          LLU(it.snapshot.last));
    kill_host(on);
    *on->disk = it.snapshot;
    start(on, "back");
}

static void clone(void) {
    host *other = &it.hosts[it.host_count++];
    trace("the volume is cloned at %llu", LLU(main_host()->disk->last));
    *other = (host){.disk = &it.volumes[1]};
    *other->disk = *main_host()->disk;
    start(other, "clone");
}

/* At the turns drawn: a snapshot is taken; then it comes. */
static void contradict(int turn, int snapshot_turn, int fatal_turn) {
    if (it.kind == KIND_ROLLED_BACK && turn == snapshot_turn) it.snapshot = *main_host()->disk;
    if (turn != fatal_turn) return;
    if (it.kind == KIND_LOST) lose_commits();
    if (it.kind == KIND_ROLLED_BACK) roll_back();
    if (it.kind == KIND_CLONED) clone();
}

/* ---- a life -------------------------------------------------------------------------------------
 */

static void setup(void) {
    static const char CATALOGUE[] = "here\ttransaction\tlife\t-\t-\t-\n"
                                    "elsewhere\ttransaction\tlife\tother\t-\t-\n";
    route_config *route = &settings.routes[0];
    failure why;
    if (!operations && catalogue_parse(bytes_of_string(CATALOGUE), &operations, &why)) {
        fprintf(stderr, "%s\n", why.reason);
        abort();
    }
    snprintf(route->name, sizeof route->name, "life");
    snprintf(route->topic, sizeof route->topic, "events");
    route->layout = chance(500) ? LAYOUT_SPLIT : LAYOUT_WHOLE;
    route->linger_ms = draw(3) ? draw(50) : 0;
    route->transaction_max_events = draw(4) ? 1 + draw(30) : 30;
    route->transaction_max_bytes = 1 << 20;
    route->max_record_bytes = 1 << 20;
}

static life_kind draw_kind(void) {
    static const life_kind KINDS[] = {KIND_LOST, KIND_ROLLED_BACK, KIND_CLONED};
    return draw(5) ? KIND_WHOLE : KINDS[draw(3)];
}

/* An old leader's answer looks like a loss; that alarm ends by itself, a minute later. */
static bool was_stale(void) {
    for (size_t i = 0; cluster_partition(i); i++)
        if (cluster_partition(i)->stale_until + 65 * SECOND > world_now()) return true;
    return false;
}

static void check_no_halt(void) {
    publisher_status status;
    if (it.kind == KIND_WHOLE && !was_stale() && host_is_halted(main_host(), &status))
        world_violate("halted without need: %s", status.last_error);
}

static void live(void) {
    int turns = (int)(chance(900) ? between(5, 30) : between(30, 150));
    int fatal_turn = (int)draw((uint64_t)turns), snapshot_turn = fatal_turn / 2;
    if (chance(200)) take_away(&cluster_away_until, "Kafka", 20 * SECOND);
    start(main_host(), "main");
    workload(NULL);
    for (int turn = 0; turn < turns && !*world_violation(); turn++) {
        int64_t gap = chance(700) ? between(0, 300 * MS) : between(0, 10 * SECOND);
        world_run_until(world_now() + gap);
        contradict(turn, snapshot_turn, fatal_turn);
        one_fault();
        check_no_halt();
    }
}

/* All faults end. */
static void become_calm(void) {
    trace("calm");
    end_zombie();
    it.calm = network_is_calm = true;
    cluster_away_until = coordinator_away_until = 0;
    for (size_t i = 0; cluster_partition(i); i++) {
        partition *each = cluster_partition(i);
        each->away_until = each->denied_until = 0;
        if (each->stale_until > world_now()) each->stale_until = world_now();
    }
    for (size_t i = 0; i < it.host_count; i++)
        if (it.hosts[i].publisher) it.hosts[i].process->paused_until = 0;
    /* One that is idle does not look again; behind its back Kafka may have lost what it had, or an
     * older opening published more than a volume that was rolled back knows of. */
    if (it.kind == KIND_LOST || it.kind == KIND_ROLLED_BACK) restart(false);
}

static void come_to_the_end(void) {
    int64_t limit = world_now() + 600 * SECOND;
    while (!*world_violation() && world_now() < limit && !check_finished(&it)) {
        world_run_until(world_now() + SECOND);
        check_no_halt();
    }
    world_run_until(world_now() + 200 * SECOND); /* what is late arrives, what is halted retries */
    if (!*world_violation()) check_promises(&it);
}

const char *life_run(uint64_t seed, bool traced, life_figures *figures) {
    world_begin(seed, traced);
    memset(&it, 0, sizeof it);
    it.figures = figures;
    it.kind = draw_kind();
    it.pace = between(10 * MS, 2 * SECOND);
    it.host_count = 1;
    it.hosts[0].disk = &it.volumes[0];
    network_is_calm = chance(100);
    network_losses = (unsigned)(chance(500) ? between(5, 30) : between(30, 150));
    volume_make(&it.volumes[0]);
    rdkafka_begin();
    cluster_begin((int)between(1, 3));
    setup();
    make_events();
    live();
    if (!*world_violation()) become_calm();
    if (!*world_violation()) come_to_the_end();
    end_zombie();
    for (size_t i = 0; i < it.host_count; i++)
        kill_host(&it.hosts[i]);
    if (rdkafka_alive()) world_violate("%d handles of librdkafka are left", rdkafka_alive());
    figures->lives++;
    return *world_violation() ? world_violation() : NULL;
}
