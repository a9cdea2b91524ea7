"""The action that each route for signed-in users is. A token's scope must allow it; see `yaptide.domain.rights`."""

from yaptide.domain.rights import Action

RIGHTS = {
    "GET /auth/status": Action.READ,
    "POST /user/update": Action.CHANGE_ACCOUNT,
    "POST /user/password": Action.CHANGE_ACCOUNT,
    "GET /user/sessions": Action.VIEW_ACCOUNT,
    "DELETE /user/sessions": Action.CHANGE_ACCOUNT,
    "GET /user/export": Action.READ,
    "DELETE /user": Action.CHANGE_ACCOUNT,
    "GET /user/tokens": Action.VIEW_ACCOUNT,
    "POST /user/tokens": Action.CHANGE_ACCOUNT,
    "DELETE /user/tokens": Action.READ,  # a program may revoke its own token; `tokens.revoke_token` checks the others
    "GET /clusters": Action.READ,
    "POST /check": Action.SUBMIT,
    "POST /convert": Action.SUBMIT,
    "POST /jobs/direct": Action.SUBMIT,
    "POST /jobs/batch": Action.SUBMIT,
    "GET /jobs": Action.READ,
    "GET /jobs/direct": Action.READ,
    "GET /jobs/batch": Action.READ,
    "DELETE /jobs": Action.CANCEL,
    "DELETE /jobs/direct": Action.CANCEL,
    "DELETE /jobs/batch": Action.CANCEL,
    "GET /jobs/history": Action.READ,
    "GET /jobs/list": Action.READ,
    "GET /jobs/summary": Action.READ,
    "GET /watch": Action.READ,
    "GET /jobs/key": Action.RUN,
    "GET /user/simulations": Action.READ,
    "DELETE /user/simulations": Action.DELETE,
    "GET /inputs": Action.READ,
    "GET /logfiles": Action.READ,
    "GET /results": Action.READ,
    "GET /estimators": Action.READ,
}
