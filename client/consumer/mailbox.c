#include "client/consumer/mailbox.h"

#include <unistd.h>

void mailbox_init(mailbox *it, int wake) {
    *it = (mailbox){.wake = wake};
    pthread_mutex_init(&it->lock, NULL);
    pthread_cond_init(&it->answered, NULL);
}

void mailbox_destroy(mailbox *it) {
    pthread_cond_destroy(&it->answered);
    pthread_mutex_destroy(&it->lock);
}

outcome mailbox_ask(void *arg, control_change change, const uint64_t *numbers, size_t count,
                    uint64_t *done, failure *why) {
    mailbox *it = arg;
    const uint64_t one = 1;
    mailbox_request request = {.change = change, .numbers = numbers, .count = count};
    pthread_mutex_lock(&it->lock);
    if (!it->open) {
        request.result = fail(&request.why, ST_STOPPING, "", "the consumer is not running");
    } else {
        it->request = &request;
        it->taken = false;
        if (write(it->wake, &one, sizeof one) < 0) request.done = 0; /* full: it is awake */
        while (it->request == &request)
            pthread_cond_wait(&it->answered, &it->lock);
    }
    pthread_mutex_unlock(&it->lock);
    *done = request.done;
    if (request.result != ST_OK) *why = request.why;
    return request.result;
}

static void answer(mailbox *it) {
    it->request = NULL;
    pthread_cond_broadcast(&it->answered);
}

void mailbox_open(mailbox *it, bool open) {
    pthread_mutex_lock(&it->lock);
    it->open = open;
    if (!open && it->request) {
        it->request->result =
            fail(&it->request->why, ST_STOPPING, "", "the consumer is ending: try again");
        answer(it);
    }
    pthread_mutex_unlock(&it->lock);
}

mailbox_request *mailbox_take(mailbox *it) {
    pthread_mutex_lock(&it->lock);
    mailbox_request *request = it->taken ? NULL : it->request;
    it->taken = request != NULL;
    pthread_mutex_unlock(&it->lock);
    return request;
}

void mailbox_answer(mailbox *it) {
    pthread_mutex_lock(&it->lock);
    it->taken = false;
    answer(it);
    pthread_mutex_unlock(&it->lock);
}
